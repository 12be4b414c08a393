"""Token-weighted ratios over clusters: the sums, the estimate and its linearised standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_vector

# Below this share of the numbers' own size, spread is rounding: constant data must count as constant.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSums:
    """Items summed within clusters, clusters in order of first appearance.

    Attributes:
        total: f64[C], sum of the items' totals.
        tokens: f64[C], sum of the items' token counts; positive.
        n_items: number of items that went in.
    """

    total: FloatArray
    tokens: FloatArray
    n_items: int

    @property
    def n_clusters(self) -> int:
        """C."""
        return self.total.size

    @property
    def n_tokens(self) -> int:
        """All tokens."""
        return int(self.tokens.sum())

    @property
    def ratio(self) -> float:
        """`sum(total) / sum(tokens)`."""
        return float(self.total.sum() / self.tokens.sum())

    @property
    def residuals(self) -> FloatArray:
        """f64[C], `total - ratio * tokens`: what a cluster adds to the ratio's error."""
        return self.total - self.ratio * self.tokens

    @property
    def se(self) -> float | None:
        """Standard error of the ratio by linearisation; 0.0 without spread, None with one cluster.

        `sqrt(C / (C - 1) * sum(e^2)) / sum(tokens)`, e the residuals (Cochran 1977, Sampling Techniques, 6.4, by
        clusters).
        """
        c = self.n_clusters
        if c < 2:  # noqa: PLR2004 (one value has no spread)
            return None
        e = self.residuals
        if np.max(np.abs(e)) <= _ROUNDING * np.max(np.abs(self.total)):
            return 0.0
        return math.sqrt(c / (c - 1) * float(e @ e)) / float(self.tokens.sum())


def sums_by_cluster(
    total: npt.ArrayLike, tokens: npt.ArrayLike, clusters: Sequence[str] | None, *, where: str
) -> ClusterSums:
    """Return the items summed by cluster; without `clusters` every item is its own.

    Args:
        total: f64[n], n >= 1, a sum over each item's tokens.
        tokens: i64[n], token counts, each at least 1.
        clusters: n names; items of one name vary together.
        where: the calling function, for errors.

    Raises:
        BadInputError: lengths that differ, a value that is not finite, an item without tokens.
    """
    sums = finite_vector(total, where=f"{where}: total")
    counts = finite_vector(tokens, where=f"{where}: tokens")
    lengths = [sums.size, counts.size] + ([] if clusters is None else [len(clusters)])
    if len(set(lengths)) > 1:
        raise BadInputError(f"total, tokens and clusters differ in length: {lengths}", where=where)
    bad = np.flatnonzero((counts < 1) | (counts != np.floor(counts)))
    if bad.size:
        raise BadInputError(
            f"item {bad[0]} has {counts[bad[0]]:g} tokens", where=f"{where}: tokens", remedy="leave empty items out"
        )
    if clusters is None:
        return ClusterSums(sums, counts, sums.size)
    index: dict[str, int] = {}
    member = np.array([index.setdefault(name, len(index)) for name in clusters])
    total_by, tokens_by = (np.bincount(member, weights=values).astype(np.float64) for values in (sums, counts))
    return ClusterSums(total_by, tokens_by, sums.size)
