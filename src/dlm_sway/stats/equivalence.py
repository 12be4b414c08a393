"""Claims of sameness: "no harm" and "still what was tested" need an interval inside a margin, never a large p."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import finite_number, inside_unit, not_negative
from dlm_sway.stats._interval import NO_SPREAD, T_CLUSTERS, TOO_FEW, Bounds, T, bounds
from dlm_sway.stats._ratio import ClusterSums, sums_by_cluster
from dlm_sway.stats._skewness import reaches
from dlm_sway.stats.power import clusters_for_bound

Decision: TypeAlias = Literal["within", "outside", "undecided"]

CRITICAL: Final = "given critical value over clusters"
WIDENED: Final = ", widened for skewness"
_SENSIBLE: Final = 100_000
"""Most clusters that anybody could be told to collect."""


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether a loss stays inside its margin.

    Attributes:
        estimate: loss in nat per token; positive is harm.
        upper: one-sided upper bound of the loss at 1 - alpha; None with one cluster.
        lower: one-sided lower bound at 1 - alpha; None likewise.
        margin: the largest loss that counts as no harm, nat per token.
        decision: `within` when upper < margin, `outside` when lower > margin, else `undecided`.
        n_clusters: clusters that went in.
        n_to_decide: clusters with which the bound would decide if estimate and spread stayed as they are; at most
            `n_clusters` when it has decided, more when not. None with one cluster, or when the estimate is so near
            the margin that no sample of a sensible size would.
        method: how the bounds were made.
    """

    estimate: float
    upper: float | None
    lower: float | None
    margin: float
    decision: Decision
    n_clusters: int
    n_to_decide: int | None
    method: str


def non_inferiority(
    loss_total: npt.ArrayLike,
    tokens: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    margin: float,
    alpha: float = 0.05,
    critical: float | None = None,
    rng: np.random.Generator,
) -> NonInferiority:
    """Return whether the loss per token is inside `margin`, by its one-sided bounds.

    The wrong answer `within` has probability alpha at a true loss equal to the margin, and so has `outside` (CONSORT
    non-inferiority, Piaggio et al. 2012). The bounds are those of `gain`: BCa from 5 clusters, t below and from 30.
    From 30 clusters, and with `critical`, a bound is widened where losses are skewed towards it (see `_skewness`):
    harm that is rare and large is what a t bound overlooks.

    Args:
        loss_total: f64[n], per item the sum of log-probs of the base minus that of the fine-tune, nats.
        tokens: i64[n], per item the number of scored tokens, each at least 1.
        clusters: n names of what varies together; None: every item by itself.
        margin: nat per token, not negative.
        alpha: one-sided level of each bound, under 0.5.
        critical: take this many standard errors in place of the quantile: for a look on the way, see `sequential`.
        rng: for the bootstrap.

    Raises:
        BadInputError: as for `gain`; a negative margin; a critical value that is not positive.
    """
    sums = _non_inferiority_iv(loss_total, tokens, clusters, margin=margin, alpha=alpha, critical=critical)
    found = _bounds(sums, alpha=alpha, critical=critical, rng=rng)
    decision = _one_sided_decision(found, margin)
    stretch = _stretch(found, sums, margin=margin, alpha=alpha, critical=critical)
    gap = abs(margin - found.estimate)
    return NonInferiority(
        estimate=found.estimate,
        upper=found.high,
        lower=found.low,
        margin=float(margin),
        decision=decision,
        n_clusters=sums.n_clusters,
        n_to_decide=_n_to_decide(sums, gap, decision, alpha=alpha, critical=critical, stretch=stretch),
        method=found.method,
    )


def _non_inferiority_iv(
    loss_total: npt.ArrayLike,
    tokens: npt.ArrayLike,
    clusters: Sequence[str] | None,
    *,
    margin: float,
    alpha: float,
    critical: float | None,
) -> ClusterSums:
    not_negative(margin, where="non_inferiority: margin")
    _alpha_iv(alpha, where="non_inferiority: alpha")
    if critical is not None and finite_number(critical, where="non_inferiority: critical") <= 0:
        raise BadInputError(f"must be positive, got {critical}", where="non_inferiority: critical")
    return sums_by_cluster(loss_total, tokens, clusters, where="non_inferiority")


def _alpha_iv(alpha: float, *, where: str) -> None:
    if inside_unit(alpha, where=where) >= 0.5:  # noqa: PLR2004 (from there on a bound lies on the wrong side)
        raise BadInputError(f"must be under 0.5, got {alpha}", where=where)


def _bounds(sums: ClusterSums, *, alpha: float, critical: float | None, rng: np.random.Generator) -> Bounds:
    if sums.se is None or sums.se == 0 or (critical is None and sums.n_clusters < T_CLUSTERS):
        return bounds((sums,), tail=alpha, rng=rng)
    df = sums.n_clusters - 1.0
    quantile, method = (-float(special.stdtrit(df, alpha)), T) if critical is None else (critical, CRITICAL)
    below, above = reaches(sums, quantile)
    low, high = sums.ratio - below * sums.se, sums.ratio + above * sums.se
    return Bounds(sums.ratio, low, high, sums.se, df, method + WIDENED)


def _one_sided_decision(found: Bounds, margin: float) -> Decision:
    if found.low is None or found.high is None:
        return "undecided"
    if found.high < margin:
        return "within"
    return "outside" if found.low > margin else "undecided"


def _stretch(found: Bounds, sums: ClusterSums, *, margin: float, alpha: float, critical: float | None) -> float:
    """Return how much further the deciding bound reaches than the formula of `clusters_for_bound` knows."""
    bound = found.high if found.estimate < margin else found.low
    if bound is None or not found.se:
        return 1.0
    plain = -float(special.stdtrit(sums.n_clusters - 1, alpha)) if critical is None else critical
    return abs(bound - found.estimate) / found.se / plain


def _n_to_decide(
    sums: ClusterSums,
    gap: float,
    decision: Decision,
    *,
    alpha: float,
    critical: float | None = None,
    stretch: float = 1.0,
) -> int | None:
    se, c = sums.se, sums.n_clusters
    if se is None or gap == 0:
        return None
    needed = c
    # What skewness adds, or takes off, fades with the root of the sample; it is not known to grow below this one.
    # Answers fall above and below in turn; the third is above.
    for _ in range(3):
        sd = se * math.sqrt(c) * max(0.0, 1 + (stretch - 1) * math.sqrt(min(1.0, c / needed)))
        needed = clusters_for_bound(sd, gap, alpha=alpha, critical=critical)
    if needed > _SENSIBLE:
        return None
    # Rounding at the very edge must not contradict what was decided at C clusters, or not.
    return max(needed, c + 1) if decision == "undecided" else min(needed, c)


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether a difference stays inside a margin on both sides (TOST).

    Attributes:
        estimate: difference in nat per token.
        low: lower end of the 1 - 2 alpha interval; None with one cluster.
        high: upper end; None likewise.
        p: the larger of the two one-sided p-values; 1.0 with one cluster.
        margin: nat per token.
        decision: `within` when the interval lies inside (-margin, margin), `outside` when it lies wholly outside,
            else `undecided`.
        n_clusters: clusters that went in.
        n_to_decide: as for `NonInferiority`, against the nearer margin.
        method: how the interval was made.
    """

    estimate: float
    low: float | None
    high: float | None
    p: float
    margin: float
    decision: Decision
    n_clusters: int
    n_to_decide: int | None
    method: str


def equivalence(
    diff_total: npt.ArrayLike,
    tokens: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    margin: float,
    alpha: float = 0.05,
) -> Equivalence:
    """Return whether two artefacts score alike: two one-sided t tests on the token-weighted difference.

    Schuirmann (1987): equivalent at level alpha when both one-sided tests reject, that is, when the 1 - 2 alpha
    interval lies inside the margin. t with C - 1 degrees of freedom at any number of clusters: the differences of
    two copies of one model are small and near symmetric, and no random numbers means the same bytes again. Without
    spread p is 0.0 inside the margin and 1.0 on or beyond it.

    Args:
        diff_total: f64[n], per item the sum of log-prob differences between the two, nats.
        tokens: i64[n], per item the number of scored tokens, each at least 1.
        clusters: n names of what varies together; None: every item by itself.
        margin: nat per token, positive.
        alpha: level of each one-sided test, under 0.5.

    Raises:
        BadInputError: as for `gain`; a margin that is not positive.
    """
    sums = _equivalence_iv(diff_total, tokens, clusters, margin=margin, alpha=alpha)
    estimate, se, df = sums.ratio, sums.se, sums.n_clusters - 1
    gap = abs(margin - abs(estimate))
    if se is None:
        return Equivalence(estimate, None, None, 1.0, float(margin), "undecided", 1, None, TOO_FEW)
    reach = -float(special.stdtrit(df, alpha)) * se if se > 0 else 0.0
    low, high = estimate - reach, estimate + reach
    decision = _two_sided_decision(low, high, margin)
    return Equivalence(
        estimate=estimate,
        low=low,
        high=high,
        p=_tost_p(estimate, se, df, margin),
        margin=float(margin),
        decision=decision,
        n_clusters=sums.n_clusters,
        n_to_decide=_n_to_decide(sums, gap, decision, alpha=alpha),
        method=T if se > 0 else NO_SPREAD,
    )


def _equivalence_iv(
    diff_total: npt.ArrayLike, tokens: npt.ArrayLike, clusters: Sequence[str] | None, *, margin: float, alpha: float
) -> ClusterSums:
    if finite_number(margin, where="equivalence: margin") <= 0:
        raise BadInputError(f"must be positive, got {margin}", where="equivalence: margin")
    _alpha_iv(alpha, where="equivalence: alpha")
    return sums_by_cluster(diff_total, tokens, clusters, where="equivalence")


def _two_sided_decision(low: float, high: float, margin: float) -> Decision:
    if -margin < low and high < margin:
        return "within"
    return "outside" if low > margin or high < -margin else "undecided"


def _tost_p(estimate: float, se: float, df: int, margin: float) -> float:
    room = margin - abs(estimate)
    if se == 0:
        return 0.0 if room > 0 else 1.0
    return float(special.stdtr(df, -room / se))
