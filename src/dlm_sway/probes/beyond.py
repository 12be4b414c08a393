"""Claims of the form "surely more than a minimum", and the items that such a number is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.core.result import Verdict
from dlm_sway.stats.paired import Estimate
from dlm_sway.stats.power import clusters_for_bound

FEWEST: Final = 5  # an exact sign-flip test of fewer clusters cannot reach 5 %


def surely_over(estimate: Estimate, minimum: float) -> Verdict:
    """Judge "the effect is over `minimum`": PASS and FAIL when the whole interval lies on one side of it."""
    if estimate.low is None or estimate.high is None or estimate.n_clusters < FEWEST:
        return Verdict.INCONCLUSIVE
    if estimate.low > minimum:
        return Verdict.PASS
    return Verdict.FAIL if estimate.high < minimum else Verdict.INCONCLUSIVE


def what_would_decide(estimate: Estimate, minimum: float, *, unit: str) -> str:
    """Return how many `unit` would decide whether the effect is over `minimum`, if it is as large as it looks."""
    n = estimate.n_clusters
    if n < FEWEST:
        return f"{n} {unit} cannot decide; give at least {FEWEST}, better 30"
    gap = abs(estimate.estimate - minimum)
    if not estimate.se or gap < 0.01 * estimate.se:
        return f"{n} {unit} do not decide: the effect lies at the minimum"
    needed = clusters_for_bound(estimate.se * n**0.5, gap, alpha=0.025)
    return f"{n} {unit} do not decide; about {max(needed, n + 1)} would"


def worst_and_best(
    values: npt.ArrayLike, row: Callable[[int], dict[str, Any]], *, n: int = 5
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the `n` items with the largest and the smallest value, equal ones in their order."""
    flat = np.asarray(values, dtype=np.float64)
    order: Sequence[int] = np.argsort(flat, kind="stable").tolist()
    rows = [{"value": float(flat[i]), **row(i)} for i in order]
    return {"largest": rows[::-1][:n], "smallest": rows[:n]}
