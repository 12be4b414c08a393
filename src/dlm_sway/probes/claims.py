"""Verdicts from numbers: the rules that every probe shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import NullTest
from dlm_sway.probes.inputs import shown
from dlm_sway.stats.paired import Estimate
from dlm_sway.stats.ranks import rank_test


def at_least(estimate: Estimate, minimum: float) -> Verdict:
    """Judge "the effect is at least `minimum`, and surely above zero" by the interval over inputs.

    PASS: estimate >= minimum and the lower bound > 0. FAIL: the whole interval lies under the minimum. Otherwise the
    inputs do not decide, and more of them would.
    """
    if estimate.low is None or estimate.high is None:
        return Verdict.INCONCLUSIVE
    if estimate.estimate >= minimum and estimate.low > 0:
        return Verdict.PASS
    return Verdict.FAIL if estimate.high < minimum else Verdict.INCONCLUSIVE


def interval_of(estimate: Estimate) -> tuple[float, float] | None:
    """Return the interval, or None when there are too few clusters for one."""
    return None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def estimate_evidence(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON values."""
    return {
        "estimate": estimate.estimate,
        "low": estimate.low,
        "high": estimate.high,
        "se": estimate.se,
        "p_sign": estimate.p,
        "method": estimate.method,
        "n_items": estimate.n_items,
        "n_clusters": estimate.n_clusters,
        "n_tokens": estimate.n_tokens,
    }


def null_evidence(test: NullTest, p_adjusted: float) -> dict[str, Any]:
    """Return what a reader needs to re-judge a null test, its draws included."""
    found = rank_test(test.real, test.draws, scale=test.scale)
    return {
        "null": "rotation (N1)",
        "statistic": test.real,
        "null_draws": [float(x) for x in test.draws],
        "null_median": found.null_median,
        "ratio": found.ratio,
        "rank": found.rank,
        "n_draws": found.n_draws,
        "p": found.p,
        "p_adjusted": p_adjusted,
        "z_extrapolated": found.z,
    }


def standing(null: Mapping[str, Any]) -> str:
    """Return where the adapter stands among its nulls, and at what p where the suite's other questions count too."""
    place = f"rank {null['rank']} of {null['n_draws'] + 1}"
    return place if null["p_adjusted"] <= null["p"] else f"{place}, p {null['p_adjusted']:.3g} over all questions"


def too_few_draws(n_draws: int, needed: int, alpha: float) -> str:
    """Return what to say when no rank among this many draws can be significant."""
    return f"{n_draws} draws cannot reach p <= {alpha}; use --draws {needed} or more"


def extremes(
    items: Sequence[TextItem], values: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64], *, n: int = 5
) -> dict[str, list[dict[str, Any]]]:
    """Return the `n` items with the largest and the smallest value per token, with the beginning of their text."""
    rate = values / tokens
    order = np.argsort(rate, kind="stable")
    rows = [
        {"label": items[i].label, "value": float(rate[i]), "tokens": int(tokens[i]), "text": shown(items[i].completion)}
        for i in order
    ]
    return {"largest": rows[::-1][:n], "smallest": rows[:n]}


def power_line(estimate: Estimate) -> float | None:
    """Return the smallest true effect that this many inputs would have shown 4 times in 5, one-sided 5 %."""
    from dlm_sway.stats.power import smallest_effect

    return None if not estimate.se else smallest_effect(estimate.se, alpha=0.05)
