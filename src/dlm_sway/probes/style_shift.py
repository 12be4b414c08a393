"""How far a style moved toward another, and how far aside: arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """A move in the space of standardised features, in units of the way from the base to the reference.

    Attributes:
        along: float64[n], by prompt the part of the move that leads to the reference; 1 is all the way. None when the
            reference is no way off.
        aside: length of the part at right angles, the noise of finitely many prompts taken off; None likewise.
        distance: from the base to the reference, in standard deviations of a piece, noise taken off.
        features: float64[K, 3], standardised means of reference, base and fine-tune, the base's at 0.
    """

    along: F64 | None
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
    variance = (reference.var(axis=0, ddof=min(1, len(reference) - 1)) + spread.var(axis=0, ddof=1)) / 2
    scale = np.maximum(np.sqrt(variance), smallest_sd)
    goal, start, end = reference / scale, base / scale, finetuned / scale
    n, centre = len(start), start.mean(axis=0)
    way = goal.mean(axis=0) - (n * centre - start) / (n - 1)  # [n, K], without the prompt's own base text
    move = end - start  # [n, K]
    noise = start.var(axis=0, ddof=1).sum() / n
    noise += goal.var(axis=0, ddof=1).sum() / len(goal) if len(goal) > 1 else 0.0
    squared = float(((goal.mean(axis=0) - centre) ** 2).sum() - noise)
    means = np.stack([goal.mean(axis=0) - centre, np.zeros_like(centre), end.mean(axis=0) - centre], axis=1)
    if squared <= 0:
        return Shift(None, None, 0.0, means)
    along = (move * way).sum(axis=1) / squared
    length = float((move.mean(axis=0) ** 2).sum() - move.var(axis=0, ddof=1).sum() / n)
    aside = float(np.sqrt(max(0.0, length / squared - along.mean() ** 2)))
    return Shift(along, aside, float(np.sqrt(squared)), means)


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
