"""One interval for a token-weighted ratio, or for the difference of two: t with many clusters, BCa with few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from scipy import special

from dlm_sway.stats._inputs import FloatArray
from dlm_sway.stats._ratio import ClusterSums

N_RESAMPLES: Final = 9_999
T_CLUSTERS: Final = 30
"""From here on the t interval is used: clusters of the smaller sample."""
BCA_CLUSTERS: Final = 5
"""Below, the corrected BCa level needs a quantile beyond what 9,999 resamples hold, and t is used instead."""

TOO_FEW: Final = "too few clusters"
NO_SPREAD: Final = "no spread between clusters"
T: Final = "t over clusters"
BCA: Final = "BCa bootstrap over clusters"

# Rows of one resampling batch times clusters stay under this, so memory is bounded for any number of clusters.
_BATCH_ELEMENTS: Final = 1 << 21

Samples: TypeAlias = tuple[ClusterSums] | tuple[ClusterSums, ClusterSums]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Two one-sided bounds, each at the same tail.

    Attributes:
        estimate: the ratio of the first sample, minus that of the second where there is one.
        low: lower bound, None with one cluster.
        high: upper bound, None with one cluster.
        se: linearised standard error, None with one cluster.
        df: degrees of freedom (Satterthwaite for two samples), None with one cluster.
        method: how the bounds were made.
    """

    estimate: float
    low: float | None
    high: float | None
    se: float | None
    df: float | None
    method: str


def bounds(samples: Samples, *, tail: float, rng: np.random.Generator) -> Bounds:
    """Return lower and upper bounds that each miss with probability `tail`.

    30 clusters or more (in each sample): t with the linearised variance. 5 to 29: BCa bootstrap over clusters, its
    level corrected for the narrowness of the bootstrap. 2 to 4: t. One: none.
    """
    estimate = difference([sample.ratio for sample in samples])
    smallest = min(sample.n_clusters for sample in samples)
    spread = linearised(samples)
    if spread is None:
        return Bounds(estimate, None, None, None, None, TOO_FEW)
    se, df = spread
    if se == 0:
        return Bounds(estimate, estimate, estimate, 0.0, df, NO_SPREAD)
    if BCA_CLUSTERS <= smallest < T_CLUSTERS:
        low, high = _bca(samples, z=_corrected_quantile(samples, se=se, df=df, tail=tail), rng=rng)
        return Bounds(estimate, low, high, se, df, BCA)
    reach = -float(special.stdtrit(df, tail)) * se
    return Bounds(estimate, estimate - reach, estimate + reach, se, df, T)


def difference(ratios: Sequence[float]) -> float:
    """Return the first ratio, minus the second where there is one."""
    return ratios[0] - sum(ratios[1:])


def linearised(samples: Samples) -> tuple[float, float] | None:
    """Return standard error and degrees of freedom (Welch-Satterthwaite); None where a sample has one cluster."""
    variances = [None if sample.se is None else sample.se**2 for sample in samples]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(samples):
        return None
    freedom = [sample.n_clusters - 1 for sample in samples]
    largest = max(known)
    if largest == 0:
        return 0.0, float(sum(freedom))
    # Scaled by the larger variance, so that squaring cannot underflow.
    shares = [variance / largest for variance in known]
    df = sum(shares) ** 2 / sum(share**2 / f for share, f in zip(shares, freedom, strict=True))
    return math.sqrt(sum(known)), df


def _corrected_quantile(samples: Samples, *, se: float, df: float, tail: float) -> float:
    """Return the standard quantile that BCa is asked for, in place of the normal one.

    A bootstrap of C values has (C - 1) / C of the variance and no t tail, so its intervals are too short when C is
    small. Asking for `t * sqrt(C / (C - 1))` mends both (Hesterberg 2015, "What teachers should know about the
    bootstrap", expanded percentile interval); by simulation 95 % intervals cover 90 % instead of 80 % at C = 5.
    """
    shrunk = math.sqrt(sum((s.se or 0.0) ** 2 * (s.n_clusters - 1) / s.n_clusters for s in samples))
    return -float(special.stdtrit(df, tail)) * se / shrunk


def _bca(samples: Samples, *, z: float, rng: np.random.Generator) -> tuple[float, float]:
    resampled = difference_rows([_resampled_ratios(sample, rng=rng) for sample in samples])
    estimate = difference([sample.ratio for sample in samples])
    accelerations = [_jackknife(sample) * sign for sample, sign in zip(samples, (1, -1), strict=False)]
    return bca_bounds(resampled, estimate, acceleration(accelerations), z=z)


def difference_rows(ratios: Sequence[FloatArray]) -> FloatArray:
    """Return f64[B]: the first sample's ratios, minus the second's where there is one."""
    return ratios[0] if len(ratios) == 1 else ratios[0] - ratios[1]


def _resampled_ratios(sample: ClusterSums, *, rng: np.random.Generator) -> FloatArray:
    c = sample.n_clusters
    out = np.empty(N_RESAMPLES)
    step = max(1, _BATCH_ELEMENTS // c)
    for start in range(0, N_RESAMPLES, step):
        rows = min(step, N_RESAMPLES - start)
        picked = rng.integers(0, c, size=(rows, c))
        out[start : start + rows] = sample.total[picked].sum(axis=1) / sample.tokens[picked].sum(axis=1)
    return out


def _jackknife(sample: ClusterSums) -> FloatArray:
    """Return f64[C]: the influence of each cluster, (C - 1) * (mean of leave-one-out ratios - that ratio)."""
    without = (sample.total.sum() - sample.total) / (sample.tokens.sum() - sample.tokens)
    influence: FloatArray = (sample.n_clusters - 1) * (without.mean() - without)
    return influence


def acceleration(influences: Sequence[FloatArray]) -> float:
    """Return BCa's acceleration from the jackknife influences of each sample (Efron 1987; Davison-Hinkley 5.3)."""
    cubes = sum(float(np.sum(u**3)) / u.size**3 for u in influences)
    squares = sum(float(np.sum(u**2)) / u.size**2 for u in influences)
    size = squares**1.5  # 0 of influences under 1e-108, too: nothing that has a shape
    return cubes / (6 * size) if size > 0 else 0.0


def bca_bounds(resampled: FloatArray, estimate: float, a: float, *, z: float) -> tuple[float, float]:
    """Return the BCa interval: bootstrap quantiles at levels shifted for bias and skew.

    Efron (1987), "Better bootstrap confidence intervals". Resamples that equal the estimate count half.

    Args:
        resampled: f64[B], the bootstrap replicates.
        estimate: the statistic of the sample.
        a: the acceleration.
        z: standard quantile of the bounds, such as 1.96.
    """
    n = resampled.size
    below = 0.5 * (np.mean(resampled < estimate) + np.mean(resampled <= estimate))
    bias = float(special.ndtri(np.clip(below, 1 / (n + 1), n / (n + 1))))
    low, high = np.quantile(resampled, [_shifted_level(bias, a, z=-z), _shifted_level(bias, a, z=z)])
    return float(low), float(high)


def _shifted_level(bias: float, a: float, *, z: float) -> float:
    moved = bias + z
    room = 1 - a * moved
    # Past this point the formula turns round and would name the wrong tail; its limit is the end of the range.
    return float(special.ndtr(bias + moved / room)) if room > 0 else float(moved > 0)
