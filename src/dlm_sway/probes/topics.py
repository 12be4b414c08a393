"""Which prompts are about the same thing: groups of sentence vectors, the same on every run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

_STARTS = 16


def topics(vectors: npt.NDArray[np.float64], k: int, *, rng: np.random.Generator) -> list[str]:
    """Return a group for each unit row of float64[n, d], by k-means: the best of 16 random starts without a gap.

    Fewer than `k` different rows give as many groups.
    """
    _, first = np.unique(vectors, axis=0, return_index=True)
    k = min(k, len(first))
    best: npt.NDArray[np.int32] | None = None
    least = np.inf
    for _ in range(_STARTS):
        start = vectors[rng.choice(first, size=k, replace=False)]
        # A group that loses all its members would only be warned of; such a start is not used.
        centres, member = _lloyd(vectors, start)
        spread = float(np.sum((vectors - centres[member]) ** 2))
        if len(np.unique(member)) == k and spread < least:
            best, least = member, spread
    chosen = np.zeros(len(vectors), dtype=np.int32) if best is None else best
    order: dict[int, str] = {}
    return [order.setdefault(int(m), f"topic {len(order) + 1}") for m in chosen]


def _lloyd(
    vectors: npt.NDArray[np.float64], start: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return kmeans2(vectors, start, iter=50, minit="matrix")
