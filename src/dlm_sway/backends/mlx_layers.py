"""What is put into an MLX model: low-rank terms for many views at once, and a stop before the vocabulary.

Rows stand view-major, `[V * N, L]`, as in `engine/stacked.py`: one product with the base weight for all views, then

    y[v] = W x[v] + s lam[v] B_v A_v x[v]          DoRA:  y[v] = (m_v / n_v) (W x[v] + s lam[v] B_v A_v x[v])

with n_v the row norms of W + s lam[v] B_v A_v (bias apart). A view changes what stands in the slots and nothing else,
so the base weight is never touched and may be quantised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn


@dataclass(frozen=True, slots=True)
class Terms:
    """What a module adds under the views of a pass.

    Attributes:
        a_t: [d_in, r] when all views share A, else [V, d_in, r].
        b_t: [V, r, d_out], s * lam[v] * B_v^T; zero for the base.
        ratio: DoRA's m_v / n_v, [V, 1, d_out], one for the base; None for plain LoRA.
    """

    a_t: Any
    b_t: Any
    ratio: Any = None


@dataclass(slots=True)
class Slot:
    """Where the terms of one module stand; without any, the module is the base's.

    Attributes:
        terms: what is added now.
        shape: the shape of what the module read last; for a check of its order.
    """

    terms: Terms | None = None
    shape: tuple[int, ...] = ()


class Wrapped(nn.Module):  # type: ignore[misc]
    """A module of the base inside another one, which answers for it where a model looks for its attributes."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    def __getattr__(self, name: str) -> Any:
        """Return what this module has under the name, else what the base's has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "base" not in self:  # while it is being made
                raise
            return getattr(self["base"], name)


class LowRankLinear(Wrapped):
    """A linear module, quantised or not, and what the views add to it."""

    def __init__(self, base: Any, slot: Slot) -> None:
        super().__init__(base)
        self.slot = slot

    def __call__(self, x: Any) -> Any:
        """Return [V * N, ..., d_out] of x [V * N, ..., d_in]."""
        y = self.base(x)
        self.slot.shape = tuple(x.shape[:-1])
        if (t := self.slot.terms) is None:
            return y
        xs = x.reshape(t.b_t.shape[0], -1, x.shape[-1]).astype(mx.float32)  # [V, n, d_in]
        return _added(y, xs @ t.a_t, t, self.base.get("bias"))


class LowRankEmbedding(Wrapped):
    """An embedding, what the views add to its rows, and what they add to the head where that is the same tensor."""

    def __init__(self, base: Any, rows: Slot, head: Slot) -> None:
        super().__init__(base)
        self.rows, self.head = rows, head

    def __call__(self, ids: Any) -> Any:
        """Return [V * N, L, d] of ids [V * N, L]."""
        y = self.base(ids)
        self.rows.shape = tuple(ids.shape)
        if (t := self.rows.terms) is None:
            return y
        per_view = ids.reshape(t.b_t.shape[0], -1)  # [V, n]
        shared = t.a_t.ndim == 2  # noqa: PLR2004 (a matrix)
        h = t.a_t[per_view] if shared else mx.take_along_axis(t.a_t, per_view[..., None], axis=1)  # [V, n, r]
        return _added(y, h, t)

    def as_linear(self, x: Any) -> Any:
        """Return logits [..., K] of x [..., d]; an adapted embedding is no adapted head."""
        y = self.base.as_linear(x)
        self.head.shape = tuple(x.shape[:-1])
        if (t := self.head.terms) is None:
            return y
        xs = x.reshape(t.b_t.shape[0], -1, x.shape[-1]).astype(mx.float32)  # [V, n, d]
        return _added(y, xs @ t.a_t, t)


@dataclass(slots=True)
class Stop:
    """What a `Core` is to do.

    Attributes:
        keep: (rows int32[P], places int32[P]) of the positions to keep; None for all.
        given: hidden states [1, P, d] to return without a look at the tokens; None: compute them.
        seen: the hidden states [P, d] that were kept last.
    """

    keep: tuple[Any, Any] | None = None
    given: Any = None
    seen: Any = None


class Core(Wrapped):
    """The part of a model before its vocabulary: it can keep chosen positions only, or be skipped.

    A causal LM of mlx_lm calls it once and projects what it returns, so that with few positions kept, or with hidden
    states given, it applies its own head (and caps and scales of logits) to those alone.
    """

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.stop = Stop()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return hidden states [N, L, d], or [1, P, d] where positions are kept or states are given."""
        if self.stop.given is not None:
            return self.stop.given
        hidden = self.base(*args, **kwargs)
        if self.stop.keep is None:
            return hidden
        self.stop.seen = hidden[self.stop.keep]
        return self.stop.seen[None]


class Net:
    """A causal LM in two halves: hidden states of chosen positions, and logits of hidden states.

    A model that cannot be halved, found out on four tokens, gives logits in the first half.

    Attributes:
        model: the whole, whose numbers are the same with and without this around it.
        device: where it computes.
    """

    def __init__(self, model: Any, device: Any) -> None:
        self.model, self.device = model, device
        inner = model.language_model if "language_model" in model else model
        self._core = Core(inner.model) if isinstance(inner.get("model"), nn.Module) else None
        if self._core is not None:
            inner.model = self._core
            if not self._halves_agree():
                inner.model, self._core = self._core["base"], None

    def hidden(self, ids: Any, row: Any, position: Any) -> Any:
        """Return what the head reads, [P, d], at positions (int32[P] rows, int32[P] places) of ids int32[N, L]."""
        if self._core is None:
            return self.model(ids)[row, position]
        stop = self._core.stop
        stop.keep = row, position
        try:
            self.model(ids)  # nothing is computed until it is read, and these logits never are
            return stop.seen
        finally:
            stop.keep = stop.seen = None

    def logits(self, hidden: Any) -> Any:
        """Return logits [P, K] in fp32 of hidden states [P, d]."""
        if self._core is None:
            return hidden.astype(mx.float32)
        self._core.stop.given = hidden[None]
        try:
            return self.model(mx.zeros((1, 1), dtype=mx.int32))[0].astype(mx.float32)
        finally:
            self._core.stop.given = None

    def _halves_agree(self) -> bool:
        ids, places = mx.arange(1, 5, dtype=mx.int32)[None], mx.arange(4)
        whole = self.model(ids)[0].astype(mx.float32)  # [4, K]
        try:
            parts = self.logits(self.hidden(ids, mx.zeros(4, dtype=mx.int32), places))
        except (AttributeError, IndexError, TypeError, ValueError):  # it asks more of its core than one array
            return False
        if parts.shape != whole.shape:
            return False
        same = (mx.abs(parts - whole) <= _AGREE * (1 + mx.abs(whole))) | (mx.isnan(parts) & mx.isnan(whole))
        return bool(mx.all(same | (parts == whole)).item())


def stacked_blocks(
    net: Net,
    ids: npt.NDArray[np.int64],
    keep: npt.NDArray[np.int64],
    *,
    n_views: int,
    least: int,
    max_bytes: int,
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield `(block of keep, logits float32[V, p, K])` while the slots hold the terms of V views.

    Args:
        net: the model.
        ids: int64[N, L], right-padded rows that every view reads.
        keep: int64[P, 2], (row, position) of each wanted logit.
        n_views: V.
        least: rows that a product with the vocabulary has at least, so that a row rounds alike in every block.
        max_bytes: of a block of logits, about.
    """
    rows = (keep[:, 0] + len(ids) * np.arange(n_views)[:, None]).reshape(-1)  # [V * P]
    # No block yields inside of a stream: it would be the consumer's too.
    with mx.stream(net.device):
        tokens = mx.array(np.tile(ids, (n_views, 1)).astype(np.int32))  # [V * N, L]
        hidden = net.hidden(tokens, mx.array(rows), mx.array(np.tile(keep[:, 1], n_views)))
        hidden = hidden.reshape(n_views, len(keep), -1)  # [V, P, d]
        mx.eval(hidden)
        width = net.logits(hidden[:, 0]).shape[-1]  # nothing is computed for it
    fewest = -(-least // n_views)
    step = max(fewest, max_bytes // (n_views * width * 4))
    for begin in range(0, len(keep), step):
        yield slice(begin, begin + step), _projected(net, hidden, begin, step, fewest)


def _projected(net: Net, hidden: Any, begin: int, step: int, fewest: int) -> npt.NDArray[np.float32]:
    """Return logits float32[V, p, K] of a part of hidden states [V, P, d], computed among at least V * fewest rows."""
    with mx.stream(net.device):
        part = hidden[:, begin : begin + step]  # [V, p, d]
        n_views, n, d = part.shape
        part = mx.pad(part, [(0, 0), (0, max(0, fewest - n)), (0, 0)])
        z = np.array(net.logits(part.reshape(-1, d)))  # [V * p, K]
    return z.reshape(n_views, -1, z.shape[-1])[:, :n]


_AGREE = 1e-2  # logits of about 20 carry this much rounding in 16 bits; a missed cap or scale is off by whole units


def _added(y: Any, h: Any, t: Terms, bias: Any = None) -> Any:
    """Return y with the term of h [V, n, r] added, in the dtype and the shape of y."""
    flat = y.reshape(h.shape[0], -1, y.shape[-1]).astype(mx.float32)  # [V, n, d_out]
    term = h @ t.b_t  # [V, n, d_out]
    if t.ratio is None:
        return (flat + term).astype(y.dtype).reshape(y.shape)
    plain = flat if bias is None else flat - bias
    return (flat + (t.ratio - 1) * plain + t.ratio * term).astype(y.dtype).reshape(y.shape)
