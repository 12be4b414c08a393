"""Ratio of two sums over the same clusters, such as the gain on paraphrases over the gain on the trained words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_vector, inside_unit


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of sums with its interval over clusters.

    Attributes:
        estimate: `sum(above) / sum(below)`; None where the sum below is zero.
        low: lower end of the two-sided interval; None where it is not bounded.
        high: upper end; None likewise.
        n_items: pairs that went in.
        n_clusters: clusters they form.
        method: how the interval was made, or why there is none.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n_items: int
    n_clusters: int
    method: str


def ratio_of_sums(
    above: npt.ArrayLike, below: npt.ArrayLike, clusters: Sequence[str] | None = None, *, confidence: float = 0.95
) -> Ratio:
    """Return `sum(above) / sum(below)` with Fieller's interval over clusters.

    The interval holds every R for which the mean of `above - R * below` is not told from zero by a t test (Fieller
    1954, "Some problems in interval estimation"). It takes the uncertainty of the sum below into account, is not
    symmetric, and is unbounded where that sum is not told from zero: then there is no interval, and the ratio means
    nothing. One cluster has none either.

    Args:
        above: f64[n].
        below: f64[n], of the same items.
        clusters: n names of what varies together; None: every item by itself.
        confidence: of the two-sided interval.

    Raises:
        BadInputError: no items, lengths that differ, a value that is not finite.
    """
    a, b, tail, n_items = _ratio_of_sums_iv(above, below, clusters, confidence=confidence)
    n, total = a.size, float(b.sum())
    estimate = float(a.sum()) / total if total else None
    if n < 2:  # noqa: PLR2004 (one value has no spread)
        return Ratio(estimate, None, None, n_items, n, "too few clusters")
    t2 = float(special.stdtrit(n - 1, tail)) ** 2 / n
    (va, cov), (_, vb) = np.cov(a, b)
    # (ma - R mb)^2 <= t^2 / n * (va - 2 R cov + R^2 vb), as a polynomial of R that is negative between its roots.
    ma, mb = float(a.mean()), float(b.mean())
    square, linear, constant = mb**2 - t2 * vb, ma * mb - t2 * cov, ma**2 - t2 * va
    inside = linear**2 - square * constant
    if square <= 0 or estimate is None:
        return Ratio(estimate, None, None, n_items, n, "unbounded: the sum below is not told from zero")
    reach = math.sqrt(max(0.0, inside))
    return Ratio(
        estimate,
        float((linear - reach) / square),
        float((linear + reach) / square),
        n_items,
        n,
        "Fieller over clusters",
    )


def _ratio_of_sums_iv(
    above: npt.ArrayLike, below: npt.ArrayLike, clusters: Sequence[str] | None, *, confidence: float
) -> tuple[FloatArray, FloatArray, float, int]:
    a, b = finite_vector(above, where="ratio_of_sums: above"), finite_vector(below, where="ratio_of_sums: below")
    lengths = [a.size, b.size] + ([] if clusters is None else [len(clusters)])
    if len(set(lengths)) > 1:
        raise BadInputError(f"above, below and clusters differ in length: {lengths}", where="ratio_of_sums")
    tail = (1 - inside_unit(confidence, where="ratio_of_sums: confidence")) / 2
    if clusters is None:
        return a, b, tail, a.size
    index: dict[str, int] = {}
    member = np.array([index.setdefault(name, len(index)) for name in clusters])
    by_cluster = (np.bincount(member, weights=x).astype(np.float64) for x in (a, b))
    return *by_cluster, tail, a.size  # type: ignore[return-value]
