"""What the tops of two distributions say about each other: exact where they hold all, else bounds.

Tokens that both sides name are compared one by one, and everything else is one bucket, "other". Merging outcomes can
only bring two distributions closer (the data-processing inequality of f-divergences), so every divergence made so is
a lower bound of the true one. Where the tops cover the vocabulary there is no other, and the value is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Key: TypeAlias = int | bytes | str
"""A token as a server names it: its id, its bytes, or its text. One server uses one of them."""
F64: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Mapping[str, npt.NDArray[np.float32]]
"""Numbers by reducer, views before positions."""

_NOTHING: Final = 1e-6  # mass under this is rounding of fp32 sums
BOUNDED: Final = frozenset({"kl", "kl_rev", "js", "tv", "entropy", "rank"})
"""Reducers whose values are lower bounds where a tail is unknown; gain and top1 are exact or unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """The most probable tokens at one position.

    Attributes:
        keys: tokens, most probable first.
        logprobs: float64[k], nats, descending.
        target: log-prob of the token that follows; NaN when it is unknown or there is none.
        target_key: that token as the server names it; None where it is not named.
    """

    keys: tuple[Key, ...]
    logprobs: F64
    target: float
    target_key: Key | None = None

    @property
    def rank(self) -> float:
        """Rank of the token that follows; one behind the last where it is not among them, which is a lower bound."""
        if not np.isfinite(self.target):
            return float(len(self.keys) + 1)
        return float(1 + int((self.logprobs > self.target).sum()))

    @property
    def by_key(self) -> dict[Key, float]:
        """Log-prob of every token that is known, the one that follows included."""
        known = dict(zip(self.keys, self.logprobs.tolist(), strict=True))
        if self.target_key is not None and np.isfinite(self.target):
            known.setdefault(self.target_key, self.target)
        return known


def compare(base: Sequence[Top], view: Sequence[Top], name: str) -> F64:
    """Return one scalar a position, float64[P], as `engine.reduce` defines them."""
    return np.array([_REDUCERS[name](p, q) for p, q in zip(base, view, strict=True)], dtype=np.float64)


def side_by_side(base: Sequence[Top], views: Sequence[Sequence[Top]], reducers: Sequence[str]) -> Values:
    """Return each reducer over views and positions, float32[V, P], and `base_logprob`, float32[P]."""
    shape = (len(views), len(base))
    out = {name: np.array([compare(base, v, name) for v in views], dtype=np.float32) for name in reducers}
    out = {name: grid.reshape(shape) for name, grid in out.items()}
    return out | {"base_logprob": np.array([top.target for top in base], dtype=np.float32)}


def _masses(base: Top, view: Top) -> tuple[F64, F64]:
    """Return float64[n] of both sides over common tokens and, last, the bucket of all others."""
    p, q = base.by_key, view.by_key
    common = [key for key in p if key in q]
    a = np.exp(np.array([p[key] for key in common], dtype=np.float64))
    b = np.exp(np.array([q[key] for key in common], dtype=np.float64))
    rest = max(0.0, 1.0 - float(a.sum())), max(0.0, 1.0 - float(b.sum()))
    if max(rest) < _NOTHING:
        return a, b
    # A side whose rest is rounding has some mass there all the same; zero would make the other side's infinite.
    return np.append(a, max(rest[0], _NOTHING)), np.append(b, max(rest[1], _NOTHING))


def _kl(base: Top, view: Top) -> float:
    p, q = _masses(base, view)
    return _divergence(p, q)


def _kl_rev(base: Top, view: Top) -> float:
    p, q = _masses(base, view)
    return _divergence(q, p)


def _js(base: Top, view: Top) -> float:
    p, q = _masses(base, view)
    middle = (p + q) / 2
    return (_divergence(p, middle) + _divergence(q, middle)) / 2


def _tv(base: Top, view: Top) -> float:
    p, q = _masses(base, view)
    return float(np.abs(p - q).sum() / 2)


def _divergence(p: F64, q: F64) -> float:
    """Return KL(p || q) of masses; r - 1 - log r with r = q / p is nowhere negative, so nothing cancels."""
    some = p > 0
    with np.errstate(divide="ignore"):
        log_ratio = np.log(q[some]) - np.log(p[some])
    return float((p[some] * (np.expm1(log_ratio) - log_ratio)).sum() + (p.sum() - q.sum()) + q[~some].sum())


def _entropy(_: Top, view: Top) -> float:
    p = np.exp(view.logprobs)
    rest = 1.0 - float(p.sum())
    inner = float(-(p * view.logprobs).sum())
    return inner - (rest * np.log(rest) if rest > _NOTHING else 0.0)


_REDUCERS: Final[dict[str, Callable[[Top, Top], float]]] = {
    "gain": lambda base, view: view.target - base.target,
    "kl": _kl,
    "kl_rev": _kl_rev,
    "js": _js,
    "tv": _tv,
    "entropy": _entropy,
    "rank": lambda _, view: view.rank,
    "top1": lambda base, view: float(base.keys[0] == view.keys[0]),
}
