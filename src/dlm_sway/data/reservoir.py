"""A random sample of a stream of unknown length in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def reservoir(stream: Iterable[T], size: int, *, rng: np.random.Generator) -> tuple[list[T], int]:
    """Return a sample without replacement, in the order of the stream, and how many items the stream had.

    Every item has the same chance; a stream of no more than `size` items is returned whole. Algorithm L, which draws
    only as many random numbers as items enter the sample (Li 1994, ACM Trans. Math. Softw. 20).

    Raises:
        ValueError: `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"a sample has at least one item, not {size}")
    kept: list[tuple[int, T]] = []
    w, upcoming, n = 1.0, 0, 0
    for n, item in enumerate(stream, start=1):
        if len(kept) < size:
            kept.append((n, item))
            if len(kept) == size:
                w, upcoming = _skip(w, n, size, rng)
        elif n == upcoming:
            kept[int(rng.integers(size))] = (n, item)
            w, upcoming = _skip(w, n, size, rng)
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])], n


def _skip(w: float, at: int, size: int, rng: np.random.Generator) -> tuple[float, int]:
    """Return the next threshold and the place of the next item that enters."""
    w *= math.exp(math.log(1.0 - rng.random()) / size)
    if w >= 1.0 or w <= 0.0:  # rounding at the ends: take the next item, or never one again
        return w, at + 1 if w >= 1.0 else 2**62
    return w, at + 1 + int(math.log(1.0 - rng.random()) / math.log1p(-w))
