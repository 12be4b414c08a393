"""What share of a gain is left: a ratio of two sums over the same items, with Fieller's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_vector, inside_unit
from dlm_sway.stats._ratio import sums_by_cluster


@dataclass(frozen=True, slots=True)
class Share:
    """A part over a whole.

    Attributes:
        estimate: sum of the parts over the sum of the wholes; None where that sum is 0.
        low: lower end of the interval; None when the whole is not surely other than 0, so that no interval is bounded.
        high: upper end; None likewise.
        n_clusters: clusters that went in.
        method: how the interval was made.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n_clusters: int
    method: str


def share(
    part: npt.ArrayLike, whole: npt.ArrayLike, clusters: Sequence[str] | None = None, *, confidence: float = 0.95
) -> Share:
    """Return `sum(part) / sum(whole)` with an interval over clusters.

    Fieller (1954), "Some problems in interval estimation": the ratios R for which the mean of `part - R * whole` is not
    surely other than 0, t with C - 1 degrees of freedom. Unlike the delta method it does not pretend to know a ratio to
    a whole that may be 0.

    Args:
        part: f64[n], per item.
        whole: f64[n], per item, of the same items.
        clusters: n names of what varies together; None: every item by itself.
        confidence: of the two-sided interval.

    Raises:
        BadInputError: lengths that differ, no items, a value that is not finite.
    """
    x, y, t = _share_iv(part, whole, clusters, confidence=confidence)
    c, total = x.size, float(y.sum())
    estimate = float(x.sum()) / total if total != 0 else None
    if c < 2:  # noqa: PLR2004 (one value has no spread)
        return Share(estimate, None, None, c, "too few clusters")
    (sxx, sxy), (_, syy) = np.cov(x, y) / c * t**2
    a, b, d = y.mean() ** 2 - syy, x.mean() * y.mean() - sxy, x.mean() ** 2 - sxx
    if a <= 0:
        return Share(estimate, None, None, c, "the whole may be 0")
    root = math.sqrt(max(0.0, b * b - a * d))
    return Share(estimate, float((b - root) / a), float((b + root) / a), c, "Fieller over clusters")


def _share_iv(
    part: npt.ArrayLike, whole: npt.ArrayLike, clusters: Sequence[str] | None, *, confidence: float
) -> tuple[FloatArray, FloatArray, float]:
    tail = (1 - inside_unit(confidence, where="share: confidence")) / 2
    parts, wholes = finite_vector(part, where="share: part"), finite_vector(whole, where="share: whole")
    if parts.size != wholes.size:
        raise BadInputError(f"{parts.size} parts and {wholes.size} wholes", where="share")
    ones = np.ones(parts.size)
    x, y = (sums_by_cluster(v, ones, clusters, where="share").total for v in (parts, wholes))
    return x, y, -float(special.stdtrit(max(1, x.size - 1), tail))
