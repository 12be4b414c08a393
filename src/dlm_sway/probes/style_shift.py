"""How far a style moved toward another, and how far aside: arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.stats.jackknife import JackknifedRatio, jackknifed_ratio

F64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """A move in the space of standardised features, in units of the way from the base to the reference.

    Attributes:
        along: float64[n], by prompt the part of the move that leads to the reference; 1 is all the way. None when the
            reference is no way off.
        share: their mean, with its uncertainty over prompts and over pieces of the reference; None likewise, or with
            fewer than three pieces or prompts.
        aside: length of the part at right angles, the noise of finitely many prompts taken off; None likewise.
        distance: from the base to the reference, in standard deviations of a piece, noise taken off.
        features: float64[K, 3], standardised means of reference, base and fine-tune, the base's at 0.
    """

    along: F64 | None
    share: JackknifedRatio | None
    aside: float | None
    distance: float
    features: F64


def shift(reference: F64, base: F64, finetuned: F64, *, smallest_sd: F64, spread: F64) -> Shift:
    """Return how the fine-tune moved.

    The way to the reference is taken for each prompt from the base's *other* prompts: with its own among them, the
    noise of the base's text would lie in the move and in the way alike, and count as a move toward the reference.

    Args:
        reference: float64[m, K], features of pieces of the reference.
        base: float64[n, K], mean features of each prompt's pieces, n >= 2.
        finetuned: float64[n, K], the same prompts.
        smallest_sd: float64[K], no spread is taken to be smaller.
        spread: float64[b, K], features of pieces of the base; what is standardised by, with the reference's.
    """
    of_base = spread.var(axis=0, ddof=1)
    scale = _scale(reference.var(axis=0, ddof=min(1, len(reference) - 1)), of_base, smallest_sd)
    goal, start, end = reference / scale, base / scale, finetuned / scale
    n, centre = len(start), start.mean(axis=0)
    way = goal.mean(axis=0) - (n * centre - start) / (n - 1)  # [n, K], without the prompt's own base text
    move = end - start  # [n, K]
    noise = start.var(axis=0, ddof=1).sum() / n
    noise += goal.var(axis=0, ddof=1).sum() / len(goal) if len(goal) > 1 else 0.0
    squared = float(((goal.mean(axis=0) - centre) ** 2).sum() - noise)
    means = np.stack([goal.mean(axis=0) - centre, np.zeros_like(centre), end.mean(axis=0) - centre], axis=1)
    if squared <= 0:
        return Shift(None, None, None, 0.0, means)
    along = (move * way).sum(axis=1) / squared
    length = float((move.mean(axis=0) ** 2).sum() - move.var(axis=0, ddof=1).sum() / n)
    aside = float(np.sqrt(max(0.0, length / squared - along.mean() ** 2)))
    enough = min(len(reference), n) > 2  # noqa: PLR2004 (without one there must be two)
    share = _share(reference, base, finetuned, smallest_sd=smallest_sd, of_base=of_base) if enough else None
    return Shift(along, share, aside, float(np.sqrt(squared)), means)


def _scale(of_reference: F64, of_base: F64, smallest_sd: F64) -> F64:
    return np.maximum(np.sqrt((of_reference + of_base) / 2), smallest_sd)


def _share(reference: F64, base: F64, finetuned: F64, *, smallest_sd: F64, of_base: F64) -> JackknifedRatio:
    """Return the mean share of the way, without a piece of the reference at a time and without a prompt at a time.

    The pieces that the base is standardised by are far more than either, and are taken as they are.
    """
    pieces, prompts = _Pieces.of(reference), _Prompts.of(base, finetuned)

    def parts(goal: _Pieces, seen: _Prompts) -> F64:
        """Return [..., 2]: move times way, and the squared way, as in `shift`."""
        squared = _scale(goal.var, of_base, smallest_sd) ** 2
        toward = (seen.move * goal.mean - seen.move_by_start) / squared
        way = ((goal.mean - seen.start) ** 2 - seen.var / seen.n - goal.var / goal.m) / squared
        return np.stack([toward.sum(axis=-1), way.sum(axis=-1)], axis=-1)

    left_out = [_Prompts.of(np.delete(base, i, axis=0), np.delete(finetuned, i, axis=0)) for i in range(len(base))]
    return jackknifed_ratio(
        parts(pieces, prompts),
        [np.stack([parts(pieces, some) for some in left_out]), parts(_Pieces.each_left_out(reference), prompts)],
    )


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Moments of the reference's pieces, [K], or [m, K] with one of them left out at a time."""

    mean: F64
    var: F64
    m: int

    @classmethod
    def of(cls, reference: F64) -> _Pieces:
        return cls(reference.mean(axis=0), reference.var(axis=0, ddof=1), len(reference))

    @classmethod
    def each_left_out(cls, reference: F64) -> _Pieces:
        m, off = len(reference), reference - reference.mean(axis=0)
        # One left out moves the mean by -off / (m - 1), and takes off^2 * m / (m - 1) from the sum of squares.
        squares = np.maximum((off**2).sum(axis=0) - off**2 * (m / (m - 1)), 0.0)
        return cls(reference.mean(axis=0) - off / (m - 1), squares / (m - 2), m - 1)


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Moments of the base's and the fine-tune's prompts, each [K]; `move_by_start` with the base's other prompts."""

    start: F64
    var: F64
    move: F64
    move_by_start: F64
    n: int

    @classmethod
    def of(cls, base: F64, finetuned: F64) -> _Prompts:
        n, centre, move = len(base), base.mean(axis=0), finetuned - base
        others = (n * centre - base) / (n - 1)
        return cls(centre, base.var(axis=0, ddof=1), move.mean(axis=0), (move * others).mean(axis=0), n)


def differ(a: F64, b: F64, *, smallest_sd: F64, rng: np.random.Generator, n_labellings: int = 999) -> float:
    """Return the p-value that two sets of pieces are of one style, by permuting which set a piece is of.

    The statistic is the squared distance of the standardised means; the observed labelling counts, so p is exact.
    """
    both = np.concatenate([a, b])
    z = (both - both.mean(axis=0)) / np.maximum(both.std(axis=0), smallest_sd)
    order = np.stack([np.arange(len(z)), *(rng.permutation(len(z)) for _ in range(n_labellings))])
    member = np.zeros(order.shape)
    np.put_along_axis(member, order[:, : len(a)], 1.0, axis=1)
    gap = member @ z / len(a) - (1 - member) @ z / len(b)
    distance = (gap**2).sum(axis=1)
    return float((distance >= distance[0] * (1 - 1e-9)).mean())
