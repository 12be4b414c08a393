"""All views in one pass: rows stacked view-major, one dense GEMM with the base weight, a batched low-rank term.

Every view reads the same tokens, so a batch of N rows becomes V * N rows. In each adapted module

    y[v] = W x[v] + s lam[v] B_v A_v x[v]          (the first term is one GEMM for all views)

The base is the view with lam 0, the fine-tune lam 1; rotation nulls share A and differ in B. Only the added term is
ours, so the base weight may be quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from dlm_sway.backends.hf_sites import LowRankSite, Sites
from dlm_sway.core.views import View


@dataclass(slots=True)
class _Factors:
    """The low-rank factors of one module for the views of a pass.

    Attributes:
        a_t: [d_in, r] when all views share A, else [V, d_in, r].
        b_t: [V, r, d_out], s * lam[v] * B_v^T; zero for the base.
    """

    a_t: Tensor
    b_t: Tensor


def supported(sites: Sites) -> bool:
    """Return whether every trained tensor has a stacked form."""
    return (
        bool(sites.low_rank)
        and not sites.dense
        and not sites.unruled
        and all(s.form in ("linear", "embedding") and s.magnitude is None for s in sites.low_rank)
    )


class FactorStore:
    """Null factors by (site, draw), made once: rotating 39 draws of 210 modules again for every pass would cost more
    than the pass."""  # noqa: D205, D209 (one sentence)

    def __init__(self, *, max_bytes: int) -> None:
        """Keep at most `max_bytes` of factors; more are made again when needed."""
        self._kept: dict[tuple[str, View], tuple[Tensor, Tensor]] = {}
        self._room = max_bytes

    def get(self, site: LowRankSite, view: View) -> tuple[Tensor, Tensor]:
        """Return A [r, d_in] and B [d_out, r] of the view, scale not included."""
        if view.kind == "adapter":
            return site.a.detach(), site.b.detach()
        key = (site.name, View(view.kind, 1.0, view.seed, view.draw, view.rank_scale, view.init_scale))
        if (found := self._kept.get(key)) is not None:
            return found
        a, b = (torch.from_numpy(x).to(p) for x, p in zip(site.factors(view), (site.a, site.b), strict=True))
        if view.kind in ("rotation", "sign_flip") and view.rank_scale == 1.0:
            a = site.a.detach()  # shared by the null, so neither copied nor kept
        size = b.numel() * b.element_size() + (0 if a.data_ptr() == site.a.data_ptr() else a.numel() * a.element_size())
        if size <= self._room:
            self._kept[key] = (a, b)
            self._room -= size
        return a, b


def stack_factors(site: LowRankSite, views: Sequence[View], store: FactorStore) -> _Factors:
    """Return the factors of `views` (the base first) for one module, padded to the largest rank."""
    pairs = [store.get(site, v) for v in views]
    scales = [site.scaling * v.lam for v in views]
    shared = all(a.data_ptr() == pairs[0][0].data_ptr() for a, _ in pairs)
    rank = max(a.shape[0] for a, _ in pairs)
    b_t = torch.zeros(len(views), rank, pairs[0][1].shape[0], dtype=site.b.dtype, device=site.b.device)
    for v, ((_, b), scale) in enumerate(zip(pairs, scales, strict=True)):
        b_t[v, : b.shape[1]] = b.T * scale
    if shared:
        return _Factors(site.a.detach().T, b_t)
    a_t = torch.zeros(len(views), pairs[0][0].shape[1], rank, dtype=site.a.dtype, device=site.a.device)
    for v, (a, _) in enumerate(pairs):
        a_t[v, :, : a.shape[0]] = a.T
    return _Factors(a_t, b_t)


@contextmanager
def stacked(sites: Sites, views: Sequence[View], store: FactorStore) -> Iterator[None]:
    """Let the model read view-major batches [V * N, L] inside the block, row group v computing `views[v]`."""
    with ExitStack() as stack:
        for site in sites.low_rank:
            factors = stack_factors(site, views, store)
            forward = _embedding_forward if site.form == "embedding" else _linear_forward
            stack.enter_context(_patched(site.layer, forward(site.layer, factors)))
        yield


@contextmanager
def _patched(layer: Any, forward: Callable[..., Tensor]) -> Iterator[None]:
    layer.forward = forward  # an instance attribute shadows the class's method
    try:
        yield
    finally:
        del layer.forward


def _linear_forward(layer: Any, f: _Factors) -> Callable[..., Tensor]:
    base = layer.base_layer

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = base(x, *args, **kwargs)  # [V * N, ..., d_out]
        xs = x.reshape(f.b_t.shape[0], -1, x.shape[-1]).to(f.b_t.dtype)  # [V, n, d_in]
        h = xs @ f.a_t  # [V, n, r]
        return _add(y, h, f.b_t)

    return forward


def _embedding_forward(layer: Any, f: _Factors) -> Callable[..., Tensor]:
    base = layer.base_layer
    scale = getattr(base, "embed_scale", None)  # Gemma multiplies embeddings by sqrt(d)

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
