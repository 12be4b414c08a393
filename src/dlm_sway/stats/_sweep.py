"""One set of items under several settings: cluster sums a setting, and resamples that move all settings together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray
from dlm_sway.stats._ratio import sums_by_cluster


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Items summed within clusters, under L settings.

    Attributes:
        totals: f64[L, C].
        tokens: f64[C], positive.
    """

    totals: FloatArray
    tokens: FloatArray

    @property
    def n_clusters(self) -> int:
        """C."""
        return self.tokens.size

    @property
    def ratios(self) -> FloatArray:
        """f64[L], `sum(total) / sum(tokens)` under each setting."""
        return np.asarray(self.totals.sum(axis=1) / self.tokens.sum(), dtype=np.float64)

    def resampled(self, n_resamples: int, *, rng: np.random.Generator) -> FloatArray:
        """Return f64[B, L]: the ratios of resamples of C - 1 clusters, the same ones under every setting.

        One cluster fewer than there are makes the variance of the bootstrap that of the sample, where C of C would be
        too small by (C - 1) / C (Rao and Wu 1988, "Resampling inference with complex survey data").
        """
        c = self.n_clusters
        counts = rng.multinomial(c - 1, np.full(c, 1 / c), size=n_resamples).astype(np.float64)  # [B, C]
        return np.asarray((counts @ self.totals.T) / (counts @ self.tokens)[:, None], dtype=np.float64)


def sweep_of(
    totals: npt.ArrayLike, tokens: npt.ArrayLike, clusters: Sequence[str] | None, *, n_settings: int, where: str
) -> Sweep:
    """Return the sums by cluster.

    Args:
        totals: f64[L, n], a sum over each item's tokens under each setting.
        tokens: i64[n], each at least 1.
        clusters: n names, or None.
        n_settings: L.
        where: the calling function, for errors.

    Raises:
        BadInputError: another number of settings, or as `sums_by_cluster`.
    """
    grid = np.asarray(totals, dtype=np.float64)
    if grid.ndim != 2 or len(grid) != n_settings:  # noqa: PLR2004 (settings and items)
        raise BadInputError(f"totals of shape {grid.shape} do not belong to {n_settings} scales", where=where)
    rows = [sums_by_cluster(row, tokens, clusters, where=where) for row in grid]
    return Sweep(np.stack([row.total for row in rows]), rows[0].tokens)


def scales_iv(lambdas: npt.ArrayLike, *, where: str) -> tuple[FloatArray, int]:
    """Return the scales as f64[L] and the index of the full one.

    Raises:
        BadInputError: fewer than three, not rising, not positive and finite, without 1, or without one up to 0.5.
    """
    lam = np.array(lambdas, dtype=np.float64)
    if lam.ndim != 1 or lam.size < 3 or not np.isfinite(lam).all() or lam[0] <= 0 or (np.diff(lam) <= 0).any():  # noqa: PLR2004
        raise BadInputError(f"scales {lam.tolist()} are not three or more rising positive numbers", where=where)
    if 1.0 not in lam or lam[0] > 0.5:  # noqa: PLR2004 (how an effect grows needs a scale well under 1)
        raise BadInputError(f"scales {lam.tolist()} lack 1, or one up to 0.5", where=where)
    return lam, int(np.flatnonzero(lam == 1.0)[0])
