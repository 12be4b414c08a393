"""Views: which variant of one model a number belongs to.

A view is a small frozen value, so it can key a cache, travel to a worker, and be compared. The weights of a null
are never stored in it: they follow from (seed, draw, module name).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

ViewKind: TypeAlias = Literal["adapter", "rotation", "sign_flip", "gaussian", "top_rank"]


@dataclass(frozen=True, slots=True)
class View:
    """One variant of the model: the adapter, a part of it, or a null in its place, at a scale.

    Attributes:
        kind: whose weights stand in the adapter's place.
        lam: multiplies the adapter's term; 0 is the base whatever the kind.
        seed: the run's seed; only nulls use it.
        draw: which null; only nulls use it.
        rank_scale: the null's rank over the adapter's (rotation), its variance (gaussian), or the share of the rank
            that is kept, the largest singular values first (top_rank).
        init_scale: standard deviation of the factors; only gaussian nulls use it.
    """

    kind: ViewKind = "adapter"
    lam: float = 1.0
    seed: int = 0
    draw: int = 0
    rank_scale: float = 1.0
    init_scale: float = 0.02


BASE = View(lam=0.0)
FINETUNED = View()


def scaled(lam: float) -> View:
    """Return the adapter at scale `lam`."""
    return View(lam=lam)


def top_ranks(shares: Iterable[float], *, lam: float = 1.0) -> tuple[View, ...]:
    """Return the adapter cut to the largest of its directions, once for each share of its rank."""
    return tuple(View("top_rank", lam, rank_scale=share) for share in shares)


def rotations(
    *, seed: int, n_draws: int, lam: float = 1.0, rank_scale: float = 1.0, first: int = 0
) -> tuple[View, ...]:
    """Return `n_draws` rotation nulls (N1) of one seed from draw `first` on; a draw index is one null everywhere."""
    return tuple(View("rotation", lam, seed, draw, rank_scale) for draw in range(first, first + n_draws))
