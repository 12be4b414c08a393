"""A ratio of two numbers that are made of several samples at once, with what each sample adds to its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_number, finite_vector, inside_unit


@dataclass(frozen=True, slots=True, eq=False)
class JackknifedRatio:
    """`above / below` with an interval over all samples.

    Attributes:
        estimate: None where `below` is 0.
        low: lower end of the two-sided interval; None where it is not bounded.
        high: upper end; None likewise.
        se: linearised standard error; None where `below` is 0.
        df: degrees of freedom (Welch and Satterthwaite).
        p: one-sided p-value that `above` is positive.
        quantile: of t, with which the interval was made.
        parts: f64[2], above and below.
        covariances: f64[S, 2, 2], of above and below, what each sample adds.
        method: how the interval was made, or why there is none.
    """

    estimate: float | None
    low: float | None
    high: float | None
    se: float | None
    df: float
    p: float
    quantile: float
    parts: FloatArray
    covariances: FloatArray
    method: str

    @property
    def se_by_sample(self) -> tuple[float, ...]:
        """What `se` would be if the other samples were known; empty where `below` is 0."""
        if self.estimate is None:
            return ()
        variances = _along(self.covariances, self.estimate)
        return tuple(float(x) for x in np.sqrt(variances) / abs(self.parts[1]))


def jackknifed_ratio(
    parts: npt.ArrayLike, without: Sequence[npt.ArrayLike], *, confidence: float = 0.95
) -> JackknifedRatio:
    """Return `above / below`, both smooth functions of independent samples, with Fieller's interval.

    Each sample's share of the covariance is that of its jackknife (Efron and Stein 1981; Arvesen 1969 for several
    samples), and they add up. The interval holds every R for which `above - R * below` is not told from 0 (Fieller
    1954), by t with Welch and Satterthwaite's degrees of freedom at the estimate. Where `below` is not told from 0 it
    is unbounded: there is no interval, and the ratio means nothing.

    Args:
        parts: f64[2], above and below, of all samples.
        without: by sample f64[n, 2], the same with one of its n units left out at a time; n at least 2.
        confidence: of the two-sided interval.

    Raises:
        BadInputError: arrays of other shapes, a sample of one unit, a value that is not finite.
    """
    both, left_out, tail = _jackknifed_ratio_iv(parts, without, confidence=confidence)
    above, below = both.tolist()
    covariances = np.stack([_covariance(rows) for rows in left_out])
    estimate = above / below if below else None
    variances = _along(covariances, estimate or 0.0)
    freedom = np.array([len(rows) - 1 for rows in left_out], dtype=np.float64)
    df = _satterthwaite(variances, freedom)
    t = -float(special.stdtrit(df, tail))
    (vaa, vab), (_, vbb) = covariances.sum(axis=0) * t**2
    square, linear, constant = below**2 - vbb, above * below - vab, above**2 - vaa
    bounded = square > 0
    reach = math.sqrt(max(0.0, linear**2 - square * constant)) if bounded else 0.0
    return JackknifedRatio(
        estimate=estimate,
        low=(linear - reach) / square if bounded else None,
        high=(linear + reach) / square if bounded else None,
        se=None if estimate is None else math.sqrt(float(variances.sum())) / abs(below),
        df=df,
        p=_p_positive(above, math.sqrt(float(covariances[:, 0, 0].sum())), df),
        quantile=t,
        parts=both,
        covariances=covariances,
        method="Fieller over jackknives" if bounded else "unbounded: the number below is not told from zero",
    )


def growth_to_decide(found: JackknifedRatio, minimum: float) -> tuple[tuple[float | None, ...], float | None]:
    """Return how many times larger samples would tell the ratio from `minimum`, if all stayed as it looks.

    The first is, by sample, its growth while the others stay as they are, None where no growth of it would do; the
    second the growth of all samples alike, None where the ratio lies at the minimum.

    Args:
        found: what did not decide.
        minimum: what the ratio is to be told from.

    Raises:
        BadInputError: a minimum that is not finite.
    """
    edge = finite_number(minimum, where="growth_to_decide: minimum")
    above, below = found.parts.tolist()
    # The ratio has to be told from the minimum, and the number below from zero.
    gaps = np.array([above - edge * below, below]) ** 2
    variances = np.stack([_along(found.covariances, edge), found.covariances[:, 1, 1]]) * found.quantile**2  # [2, S]
    if (gaps <= 0).any():
        return (None,) * len(found.covariances), None
    alone = [_alone(gaps - (variances.sum(axis=1) - own), own) for own in variances.T]
    return tuple(alone), max(1.0, float((variances.sum(axis=1) / gaps).max()))


def _alone(room: FloatArray, own: FloatArray) -> float | None:
    return max(1.0, float((own / room).max())) if (room > 0).all() else None


def _jackknifed_ratio_iv(
    parts: npt.ArrayLike, without: Sequence[npt.ArrayLike], *, confidence: float
) -> tuple[FloatArray, list[FloatArray], float]:
    tail = (1 - inside_unit(confidence, where="jackknifed_ratio: confidence")) / 2
    both = finite_vector(parts, where="jackknifed_ratio: parts")
    rows = [np.asarray(sample, dtype=np.float64) for sample in without]
    if both.size != 2 or not rows or any(r.ndim != 2 or r.shape[1] != 2 or len(r) < 2 for r in rows):  # noqa: PLR2004
        raise BadInputError("needs two parts, and two or more rows of two for each sample", where="jackknifed_ratio")
    for sample in rows:
        finite_vector(sample.ravel(), where="jackknifed_ratio: without")
    return both, rows, tail


def _covariance(left_out: FloatArray) -> FloatArray:
    n, off = len(left_out), left_out - left_out.mean(axis=0)
    return np.asarray((n - 1) / n * off.T @ off, dtype=np.float64)


def _along(covariances: FloatArray, ratio: float) -> FloatArray:
    """Return f64[S]: the variance of `above - ratio * below` that each sample adds."""
    away = np.array([1.0, -ratio])
    return np.maximum(np.asarray(away @ covariances @ away, dtype=np.float64), 0.0)


def _satterthwaite(variances: FloatArray, freedom: FloatArray) -> float:
    largest = float(variances.max())
    if largest == 0:
        return float(freedom.sum())
    shares = variances / largest  # so that squaring cannot underflow
    return float(shares.sum() ** 2 / (shares**2 / freedom).sum())


def _p_positive(above: float, se: float, df: float) -> float:
    if se == 0:
        return 0.0 if above > 0 else 1.0
    return float(special.stdtr(df, -above / se))
