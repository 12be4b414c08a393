"""All views in one pass: rows stacked view-major, one dense GEMM with the base weight, a batched low-rank term.

Every view reads the same tokens, so a batch of N rows becomes V * N rows. In each adapted module

    y[v] = W x[v] + s lam[v] B_v A_v x[v]          (the first term is one GEMM for all views)

The base is the view with lam 0, the fine-tune lam 1; rotation nulls share A and differ in B. Only the added term is
ours, so the base weight may be quantised. DoRA scales each output of W + s lam B A to the length m; with n the row
norms of that sum, which `factors` finds without forming it,

    y[v] = W x[v] + (m_v/n_v - 1) W x[v] + (m_v/n_v) s lam[v] B_v A_v x[v]          (bias apart)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from dlm_sway.backends.hf_sites import LowRankSite, Sites
from dlm_sway.core.views import View
from dlm_sway.engine.factors import Factors, FactorStore

_ROWS, _LENGTH = 3, 5  # of the probe batch; both prime, so that shapes cannot be mistaken for each other


def supported(sites: Sites) -> bool:
    """Return whether every trained tensor has a stacked form."""
    return bool(sites.low_rank) and not sites.dense and not sites.unruled and all(map(_has_form, sites.low_rank))


def _has_form(site: LowRankSite) -> bool:
    # DoRA needs the rows of W, which a quantised base does not have.
    return site.form == "embedding" or (site.form == "linear" and (site.magnitude is None or not site.is_quantised))


@torch.inference_mode()
def keeps_rows(model: Any, sites: Sites) -> bool:
    """Return whether each adapted module reads all tokens of a batch in the order of its rows.

    Modules that read a routed part of the tokens, or time before rows, would mix up the views of a stack.
    """
    shapes: list[tuple[int, ...]] = []

    def note(_: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        shapes.append(tuple(x.shape if x.dtype == torch.int64 else x.shape[:-1]))

    handles = [site.layer.register_forward_pre_hook(note, with_kwargs=True) for site in sites.low_rank]
    try:
        model(input_ids=torch.ones(_ROWS, _LENGTH, dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return all(shape in ((_ROWS, _LENGTH), (_ROWS * _LENGTH,)) for shape in shapes)


@contextmanager
def stacked(sites: Sites, views: Sequence[View], store: FactorStore) -> Iterator[None]:
    """Let the model read view-major batches [V * N, L] inside the block, row group v computing `views[v]`."""
    with ExitStack() as stack:
        for site, factors in zip(sites.low_rank, store.stack(sites.low_rank, views), strict=True):
            forward = _embedding_forward if site.form == "embedding" else _linear_forward
            stack.enter_context(_patched(site.layer, forward(site.layer, factors)))
        yield


@contextmanager
def _patched(layer: Any, forward: Callable[..., Tensor]) -> Iterator[None]:
    before = vars(layer).get("forward")  # accelerate puts one there too
    layer.forward = forward  # an instance attribute shadows the class's method
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before


def _linear_forward(layer: Any, f: Factors) -> Callable[..., Tensor]:
    base = layer.base_layer

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = base(x, *args, **kwargs)  # [V * N, ..., d_out]
        xs = x.reshape(f.b_t.shape[0], -1, x.shape[-1]).to(f.b_t.dtype)  # [V, n, d_in]
        h = xs @ f.a_t  # [V, n, r]
        if f.growth is None:
            return _add(y, h, f.b_t)
        flat = y.reshape(*xs.shape[:2], -1)  # [V, n, d_out]
        plain = flat if getattr(base, "bias", None) is None else flat - base.bias
        return _add((flat + f.growth * plain).reshape(y.shape), h, f.b_t).to(y.dtype)

    return forward


def _embedding_forward(layer: Any, f: Factors) -> Callable[..., Tensor]:
    base = layer.base_layer
    scale = layer._get_embed_scale()  # noqa: SLF001 (Gemma multiplies embeddings by sqrt(d); PEFT's own reading of it)

    def forward(ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = base(ids, *args, **kwargs)  # [V * N, L, d]
        if f.a_t.dim() == 2:  # noqa: PLR2004 (a matrix: shared by all views)
            h = F.embedding(ids, f.a_t)
        else:
            per_view = ids.reshape(f.a_t.shape[0], -1)  # [V, n]
            h = torch.stack([F.embedding(i, a) for i, a in zip(per_view, f.a_t, strict=True)])
        h = h.reshape(f.b_t.shape[0], -1, f.b_t.shape[1])  # [V, n, r]
        return _add(y, h if scale is None else h * scale.to(h.dtype), f.b_t)

    return forward


def _add(y: Tensor, h: Tensor, b_t: Tensor) -> Tensor:
    """Return y + h B^T with h [V, n, r] and b_t [V, r, d_out], in the dtype of y."""
    flat = y.reshape(h.shape[0], -1, y.shape[-1])  # [V, n, d_out]
    out = torch.baddbmm(flat, h, b_t) if flat.dtype == h.dtype else (flat + torch.bmm(h, b_t)).to(y.dtype)
    return out.reshape(y.shape)
