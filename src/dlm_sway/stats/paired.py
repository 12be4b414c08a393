"""Gains over inputs: how much better the fine-tune scores text like this, and how sure the inputs make us.

The randomness here is in the inputs, for this adapter. Whether an adapter that learned nothing would do the same is
the other question, and `ranks` answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.stats._inputs import inside_unit
from dlm_sway.stats._interval import T_CLUSTERS, Bounds, bounds
from dlm_sway.stats._labels import permute_labels
from dlm_sway.stats._ratio import ClusterSums, sums_by_cluster
from dlm_sway.stats._signs import SignFlip, mcnemar, sign_flip

__all__ = ["Estimate", "SignFlip", "gain", "gain_difference", "mcnemar", "sign_flip"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A token-weighted mean, or a difference of two, with its uncertainty over inputs.

    Attributes:
        estimate: nat per token.
        low: lower end of the two-sided interval; None when there are too few clusters for one.
        high: upper end; None likewise.
        n_items: items that went in, of both sets for a difference.
        n_clusters: clusters they form; what vary independently.
        n_tokens: tokens they hold.
        se: linearised standard error over clusters, nat per token; None with one cluster, 0.0 without spread.
        method: how the interval and p were made.
        p: one-sided p-value that the estimate is positive.
    """

    estimate: float
    low: float | None
    high: float | None
    n_items: int
    n_clusters: int
    n_tokens: int
    se: float | None
    method: str
    p: float


def gain(
    total: npt.ArrayLike,
    tokens: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Return `G = sum(total) / sum(tokens)` with an interval over clusters.

    30 clusters or more: t interval and t test with the linearised variance of the ratio. 5 to 29: BCa bootstrap over
    clusters (9,999 resamples, level corrected for small samples); 2 to 4: t interval; both with p from the exact
    sign-flip test on cluster totals. One cluster: no interval, and the method says `too few clusters`. Without any
    spread the interval is the point and p comes from the sign flips.

    Args:
        total: f64[n], per item the sum of log-prob differences, fine-tune minus base, nats.
        tokens: i64[n], per item the number of scored tokens, each at least 1.
        clusters: n names of what varies together (a document, a template); None: every item by itself.
        confidence: of the two-sided interval.
        rng: for the bootstrap and for random flips.

    Raises:
        BadInputError: lengths that differ, no items, an item without tokens, a value that is not finite.
    """
    sums, tail = _gain_iv(total, tokens, clusters, confidence=confidence)
    found = bounds((sums,), tail=tail, rng=rng)
    p, test = _p(found, sums.n_clusters, lambda: _sign_flip_p(sums, rng=rng))
    return Estimate(
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        n_items=sums.n_items,
        n_clusters=sums.n_clusters,
        n_tokens=sums.n_tokens,
        se=found.se,
        method=_method(found, test),
        p=p,
    )


def _gain_iv(
    total: npt.ArrayLike, tokens: npt.ArrayLike, clusters: Sequence[str] | None, *, confidence: float
) -> tuple[ClusterSums, float]:
    tail = (1 - inside_unit(confidence, where="gain: confidence")) / 2
    return sums_by_cluster(total, tokens, clusters, where="gain"), tail


def gain_difference(  # noqa: PLR0917 (two sets of the three arguments of `gain`, in its order)
    total_a: npt.ArrayLike,
    tokens_a: npt.ArrayLike,
    clusters_a: Sequence[str] | None,
    total_b: npt.ArrayLike,
    tokens_b: npt.ArrayLike,
    clusters_b: Sequence[str] | None,
    *,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Return `G_a - G_b` of two disjoint sets of items, such as target and control, with an interval over clusters.

    30 clusters or more in each: Welch's t interval and test, Satterthwaite degrees of freedom from the linearised
    variances. Fewer: two-sample BCa bootstrap (a set of 2 to 4 clusters: Welch's interval), with p from the
    studentised permutation of labels by cluster. One cluster in a set: no interval.

    Args:
        total_a: f64[n], as for `gain`.
        tokens_a: i64[n].
        clusters_a: n names; names are local to a set, so equal names in the two sets are different clusters.
        total_b: f64[k].
        tokens_b: i64[k].
        clusters_b: k names.
        confidence: of the two-sided interval.
        rng: for the bootstrap and for random labels.

    Raises:
        BadInputError: as for `gain`, in either set.
    """
    (a, tail), (b, _) = (
        _gain_iv(total_a, tokens_a, clusters_a, confidence=confidence),
        _gain_iv(total_b, tokens_b, clusters_b, confidence=confidence),
    )
    found = bounds((a, b), tail=tail, rng=rng)
    p, test = _p(found, min(a.n_clusters, b.n_clusters), lambda: _label_p(a, b, rng=rng))
    return Estimate(
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        n_items=a.n_items + b.n_items,
        n_clusters=a.n_clusters + b.n_clusters,
        n_tokens=a.n_tokens + b.n_tokens,
        se=found.se,
        method=_method(found, test),
        p=p,
    )


def _p(found: Bounds, n_clusters: int, otherwise: Callable[[], tuple[float, str]]) -> tuple[float, str]:
    if n_clusters >= T_CLUSTERS and found.se and found.df is not None:
        return float(special.stdtr(found.df, -found.estimate / found.se)), "t test"
    return otherwise()


def _sign_flip_p(sums: ClusterSums, *, rng: np.random.Generator) -> tuple[float, str]:
    flips = sign_flip(sums.total, rng=rng)
    return flips.p, "exact sign flips" if flips.exact else f"{flips.n_flips:,} random sign flips"


def _label_p(a: ClusterSums, b: ClusterSums, *, rng: np.random.Generator) -> tuple[float, str]:
    test = permute_labels(a, b, rng=rng)
    return test.p, "exact label permutation" if test.exact else f"{test.n_labellings:,} random label permutations"


def _method(found: Bounds, test: str) -> str:
    return found.method if found.low is None else f"{found.method}; {test}"
