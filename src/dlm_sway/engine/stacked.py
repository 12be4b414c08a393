"""All views in one pass: rows stacked view-major, one dense GEMM with the base weight, a batched low-rank term.

Every view reads the same tokens, so a batch of N rows becomes V * N rows. In each adapted module

    y[v] = W x[v] + s lam[v] B_v A_v x[v]          (the first term is one GEMM for all views)

The base is the view with lam 0, the fine-tune lam 1; rotation nulls share A and differ in B. Only the added term is
ours, so the base weight may be quantised. DoRA scales each output of W + s lam B A to the length m; with n the row
norms of that sum, which `factors` finds without forming it,

    y[v] = W x[v] + (m_v/n_v - 1) W x[v] + (m_v/n_v) s lam[v] B_v A_v x[v]          (bias apart)

Tensors trained whole are in `seats` and `dense`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from dlm_sway.backends.hf_overlay import shown
from dlm_sway.backends.hf_sites import LowRankSite, Sites
from dlm_sway.core.views import BASE, View, scaled
from dlm_sway.engine.dense import at_base, dense_forward, through, trained_values
from dlm_sway.engine.factors import Factors, FactorStore
from dlm_sway.engine.seats import Seats

_AGREE = {torch.float32: 1e-3}  # of the spread of the logits; a tensor read past its module is off by far more
_AGREE_ROUGHLY = 0.05  # in 16 bits, where batches of two shapes differ by about a hundredth
_NONE = Seats()
_ROWS, _LENGTH = 3, 5  # of the probe batch; both prime, so that shapes cannot be mistaken for each other


def supported(sites: Sites) -> bool:
    """Return whether every trained tensor may have a stacked form; `find_seats` knows of those trained whole."""
    there = bool(sites.low_rank or sites.dense) and sites.blocked is None
    return there and not sites.unruled and all(map(_has_form, sites.low_rank))


def _has_form(site: LowRankSite) -> bool:
    # DoRA needs the rows of W, which a quantised base does not have.
    return site.form == "embedding" or (site.form == "linear" and (site.magnitude is None or not site.is_quantised))


@torch.inference_mode()
def keeps_rows(model: Any, sites: Sites, seats: Seats = _NONE) -> bool:
    """Return whether each adapted module reads all tokens of a batch in the order of its rows.

    Modules that read a routed part of the tokens, or time before rows, would mix up the views of a stack.
    """
    shapes: list[tuple[int, ...]] = []

    def note(_: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        shapes.append(tuple(x.shape if x.dtype == torch.int64 else x.shape[:-1]))

    layers = [s.layer for s in sites.low_rank] + [s.trained for s in seats.seats]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        model(input_ids=torch.ones(_ROWS, _LENGTH, dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return all(map(_by_row, shapes))


def _by_row(shape: tuple[int, ...]) -> bool:
    """Whether what has this shape, features cut off, goes row after row; norms of heads see heads too."""
    return shape[:1] == (_ROWS * _LENGTH,) or (shape[:1] == (_ROWS,) and _LENGTH in shape[1:3])


@torch.inference_mode()
def agrees(model: Any, sites: Sites, seats: Seats) -> bool:
    """Return whether a stacked pass gives what one view at a time does, tried on two short rows.

    A model may read a tensor without calling the module that holds it; then no forward put there is seen.
    """
    views = (BASE, scaled(0.5), *(() if sites.refusal() else (View("rotation"),)))
    core = model.get_base_model()
    ids = (
        torch.arange(1, 2 * _LENGTH + 1, device=model.device).reshape(2, -1) % core.config.get_text_config().vocab_size
    )
    with stacked(sites, views, FactorStore(max_bytes=0), seats):
        got = core(input_ids=ids.repeat(len(views), 1), use_cache=False).logits.float().unflatten(0, (len(views), -1))
    expected: list[Tensor] = []
    for view in views:
        with shown(model, sites, view):
            expected.append(core(input_ids=ids, use_cache=False).logits.float())
    want = torch.stack(expected)  # [V, 2, L, K]
    broken = ~(torch.isfinite(got) | torch.isfinite(want))  # in both: that is for others to say
    off = (got - want).masked_fill(broken, 0.0).square().mean(-1).sqrt()
    spread = want.masked_fill(broken, 0.0).std(-1)
    return bool((off <= _AGREE.get(model.dtype, _AGREE_ROUGHLY) * spread).all())


@contextmanager
def stacked(sites: Sites, views: Sequence[View], store: FactorStore, seats: Seats = _NONE) -> Iterator[None]:
    """Let the model read view-major batches [V * N, L] inside the block, row group v computing `views[v]`."""
    if any(view.kind == "top_rank" for view in views):
        sites.require_cut()
    with ExitStack() as stack:
        for wrapper in seats.wrappers:
            stack.enter_context(_patched(wrapper, through(wrapper.original_module)))
        trained = [trained_values(seat) for seat in seats.seats]
        stack.enter_context(at_base(seats))
        turns = store.turns([seat.site for seat in seats.seats], views)
        for seat, turn, values in zip(seats.seats, turns, trained, strict=True):
            stack.enter_context(_patched(seat.layer, dense_forward(seat, turn, values)))
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
