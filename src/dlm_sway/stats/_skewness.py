"""How far a bound must reach when losses are skewed: a t bound overlooks harm that is rare and large."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from dlm_sway.stats._ratio import ClusterSums

_SYMMETRIC: Final = 1e-6


def reaches(sums: ClusterSums, quantile: float) -> tuple[float, float]:
    """Return how many standard errors the bounds lie below and above the estimate; never less than `quantile`.

    Hall (1992), "On the removal of skewness by transformation": the monotone cubic that takes the skewness out of a
    studentised mean, inverted at the quantile, with the skewness of the cluster residuals. Each side takes the wider
    of that and the plain quantile, so a correction made from noise can only cost power, never the promised level.

    Args:
        sums: two clusters at least, with some spread.
        quantile: positive; how far a symmetric bound reaches.
    """
    e = sums.residuals / np.max(np.abs(sums.residuals))
    skewness = float(np.mean(e**3)) / float(np.mean(e**2)) ** 1.5
    k = skewness / math.sqrt(sums.n_clusters)
    if abs(k) < _SYMMETRIC:
        return quantile, quantile
    below = 3 / k * (math.cbrt(1 + k * (quantile - k / 6)) - 1)
    above = 3 / k * (1 - math.cbrt(1 + k * (-quantile - k / 6)))
    return max(quantile, below), max(quantile, above)
