"""Where one adapter stands among its nulls: an exact test that needs no distribution.

Rotations form a group, so under "the direction was not learned" the real adapter and its m draws are exchangeable
and every rank of the real one among the m + 1 is equally likely: p is exact for any m and any statistic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dlm_sway.stats._inputs import Alternative, FloatArray, finite_number, finite_vector, one_of

Z_DRAWS = 39
"""Draws from which a standard score is shown at all (DESIGN 4.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class RankTest:
    """How extreme one value is among its nulls.

    Attributes:
        statistic: the real value.
        p: exact p-value, `(1 + #{null at least as extreme}) / (n_draws + 1)`; ties count against us.
        rank: 1 for the most extreme of `n_draws + 1`; a tie takes the worse rank.
        n_draws: m, the number of nulls.
        null_median: median of the nulls, in the statistic's unit.
        ratio: `statistic / null_median`; None when the median is not positive, or the ratio beyond float64.
        z: extrapolated standard score, positive when the statistic is large; None where it would mislead.
        nulls: f64[m], read-only, as given.
    """

    statistic: float
    p: float
    rank: int
    n_draws: int
    null_median: float
    ratio: float | None
    z: float | None
    nulls: FloatArray


def rank_test(
    real: float,
    nulls: npt.ArrayLike,
    *,
    alternative: Alternative = "greater",
    scale: Literal["log", "linear"] = "log",
) -> RankTest:
    """Return the exact rank p-value of `real` among `nulls`.

    Exact when real and nulls are exchangeable under the null hypothesis and the statistic was fixed before
    (Phipson and Smyth 2010, "Permutation p-values should never be zero").

    Args:
        real: the statistic of the real adapter.
        nulls: f64[m], m >= 1, the same statistic on the same inputs in the same batch path.
        alternative: which side is extreme.
        scale: where `z` is taken: `log` for positive metrics such as a divergence, `linear` for gains. It changes
            neither p nor rank.

    Raises:
        BadInputError: no nulls, or a value that is not finite.
    """
    value, draws = _rank_test_iv(real, nulls, alternative=alternative, scale=scale)
    n_extreme = int(np.sum(draws >= value if alternative == "greater" else draws <= value))
    median = float(np.median(draws))
    return RankTest(
        statistic=value,
        p=(1 + n_extreme) / (draws.size + 1),
        rank=1 + n_extreme,
        n_draws=draws.size,
        null_median=median,
        ratio=_ratio(value, median),
        z=_extrapolated_z(value, draws, scale=scale),
        nulls=draws,
    )


def _rank_test_iv(real: float, nulls: npt.ArrayLike, *, alternative: str, scale: str) -> tuple[float, FloatArray]:
    one_of(alternative, ("greater", "less"), where="rank_test: alternative")
    one_of(scale, ("log", "linear"), where="rank_test: scale")
    return finite_number(real, where="rank_test: real"), finite_vector(nulls, where="rank_test: nulls")


def _ratio(value: float, median: float) -> float | None:
    ratio = value / median if median > 0 else math.inf
    return ratio if math.isfinite(ratio) else None


def _extrapolated_z(value: float, nulls: FloatArray, *, scale: str) -> float | None:
    """Return `(x - mean) / (s * sqrt(1 + 1/m))` with ddof 1: the standard score of a new draw.

    None with fewer than 39 draws, with nulls that are all equal, and on the log scale with a value that is not
    positive: there the tail cannot be judged from the draws.
    """
    m = nulls.size
    if m < Z_DRAWS or np.ptp(nulls) == 0:
        return None
    if scale == "log":
        if value <= 0 or np.any(nulls <= 0):
            return None
        value, nulls = math.log(value), np.log(nulls)
    spread = float(np.std(nulls, ddof=1)) * math.sqrt(1 + 1 / m)
    z = (value - float(np.mean(nulls))) / spread if spread > 0 else math.inf
    return z if math.isfinite(z) else None
