"""Two fine-tunes, one question: by how much one is ahead of the other on the same inputs, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import count, finite_number, finite_vector, inside_unit
from dlm_sway.stats._ratio import sums_by_cluster
from dlm_sway.stats.paired import gain, sign_flip

_ONE_SIDED: Final = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """The second fine-tune minus the first.

    Attributes:
        estimate: the difference, in the unit of the values.
        low: lower end of the two-sided interval; None where there is none.
        high: upper end; None likewise.
        se: its standard error; None likewise.
        p: two-sided p-value that there is no difference.
        n_items: items that it is made of; 0 for one made of intervals.
        n_clusters: clusters that they form.
        method: how interval and p were made.
    """

    estimate: float
    low: float | None
    high: float | None
    se: float | None
    p: float
    n_items: int
    n_clusters: int
    method: str


def paired_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    tokens: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Difference:
    """Return the difference of two fine-tunes over the items that both have read.

    `sum(second - first) / sum(tokens)`, with the interval of `paired.gain` over clusters of the items' differences:
    what makes an item easy or hard for both cancels. p is twice the smaller of the two one-sided ones, at most 1: t
    with 30 clusters or more, else exact or random sign flips.

    Args:
        first: f64[n], per item a sum over its tokens, under the first.
        second: f64[n], under the second.
        tokens: i64[n], what the sums are divided by.
        clusters: n names of what varies together; None: every item by itself.
        confidence: of the two-sided interval.
        rng: for the bootstrap and for random flips.

    Raises:
        BadInputError: lengths that differ, no items, an item without tokens, a value that is not finite.
    """
    change = _change_iv(first, second)
    up = gain(change, tokens, clusters, confidence=confidence, rng=rng)
    by_cluster = sums_by_cluster(change, tokens, clusters, where="paired_difference")
    down = 1 - up.p if up.method.endswith("t test") else sign_flip(-by_cluster.total, rng=rng).p
    return Difference(
        estimate=up.estimate,
        low=up.low,
        high=up.high,
        se=up.se,
        p=min(1.0, 2 * min(up.p, down)),
        n_items=up.n_items,
        n_clusters=up.n_clusters,
        method=f"paired; {up.method}",
    )


def _change_iv(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    a = finite_vector(first, where="paired_difference: first")
    b = finite_vector(second, where="paired_difference: second")
    if a.size != b.size:
        raise BadInputError(f"{a.size} and {b.size} items cannot be paired", where="paired_difference")
    return b - a


def unpaired_difference(
    first: float,
    first_ends: tuple[float, float],
    second: float,
    second_ends: tuple[float, float],
    *,
    confidence: float = 0.95,
) -> Difference | None:
    """Return the difference of two estimates of which only the intervals are known; None where they say too little.

    Square-and-add (Zou and Donner 2008, MOVER): each end of the difference is as far out as the root of the summed
    squares of the two distances to the ends that it is made of. Each distance is read as 1.645 standard errors, as if
    its interval held 90 %: intervals that hold more make the answer wider, never too sure. Estimates from the same
    inputs vary together, which this does not know, so it is wider than a pairing would be.

    Args:
        first: an estimate.
        first_ends: lower and upper end of its interval.
        second: the other estimate.
        second_ends: of the other's.
        confidence: of the two-sided interval of the difference.

    Raises:
        BadInputError: an estimate that is not finite, a confidence outside (0, 1).
    """
    a = finite_number(first, where="unpaired_difference: first")
    b = finite_number(second, where="unpaired_difference: second")
    level = inside_unit(confidence, where="unpaired_difference: confidence")
    reach = (a - first_ends[0], first_ends[1] - a, b - second_ends[0], second_ends[1] - b)
    if not all(math.isfinite(r) and r >= 0 for r in reach):
        return None
    z = float(special.ndtri(_ONE_SIDED))
    down, up = math.hypot(reach[2], reach[1]) / z, math.hypot(reach[3], reach[0]) / z
    if min(down, up) == 0:
        return None
    estimate = b - a
    toward_zero = down if estimate > 0 else up
    wide = float(special.ndtri(1 - (1 - level) / 2))
    return Difference(
        estimate=estimate,
        low=estimate - wide * down,
        high=estimate + wide * up,
        se=(down + up) / 2,
        p=min(1.0, 2 * float(special.ndtr(-abs(estimate) / toward_zero))),
        n_items=0,
        n_clusters=0,
        method="unpaired; square-and-add of the two intervals",
    )


def lead_by_chance(n_candidates: int, se: float, *, level: float = 0.95) -> float:
    """Return how far the best of `n_candidates` equal ones looks ahead of their mean in `level` of all cases at most.

    The `level` quantile of the largest of so many normal errors, `se * ndtri(level ** (1 / n))`. That the candidates'
    mean has an error of its own would make it a little smaller. The idea is that of arviz's model comparison (McLatchie
    and Vehtari 2024, "Efficient estimation and correction of selection-induced bias with order statistics"), with the
    standard error measured instead of taken from the spread of the candidates.

    Args:
        n_candidates: how many the best was chosen from, at least 1.
        se: standard error of one candidate beside the others: that of a difference divided by the root of 2.
        level: of the quantile.

    Raises:
        BadInputError: no candidate, a standard error that is not finite, a level outside (0, 1).
    """
    n = count(n_candidates, where="lead_by_chance: n_candidates", at_least=1)
    inside = inside_unit(level, where="lead_by_chance: level")
    return max(0.0, float(special.ndtri(inside ** (1 / n)))) * finite_number(se, where="lead_by_chance: se")
