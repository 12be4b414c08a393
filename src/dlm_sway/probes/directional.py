"""Claims of the form "moved the right way": by enough, surely over these inputs, and more than random directions do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlm_sway.core.result import Verdict
from dlm_sway.probes.base import Env
from dlm_sway.probes.beyond import FEWEST
from dlm_sway.probes.claims import at_least, standing, too_few_draws
from dlm_sway.stats.paired import Estimate
from dlm_sway.stats.power import clusters_needed, draws_needed

NO_NULL = "sign flip of paired gains (N5)"
CLEARLY_NULL = 0.2
"""Rank p from which random directions clearly do as well: 4 in 5 adapters that learned nothing have one, and an effect
that few draws or few texts hide seldom has."""


def directional(
    estimate: Estimate, minimum: float, null: Mapping[str, Any] | None, env: Env, *, units: str
) -> tuple[Verdict, str]:
    """Judge "the effect is at least `minimum`, surely above zero, and more than the nulls show".

    Args:
        estimate: over inputs.
        minimum: the smallest effect worth a pass, in the estimate's unit.
        null: what `claims.null_evidence` says, or None where the adapter has no null; then the inputs decide alone.
        env: level and number of draws.
        units: what varies in the interval, such as `cases`.

    Returns:
        The verdict and, unless it is PASS, the reason: what is wrong, or what would decide.
    """
    by_inputs = at_least(estimate, minimum)
    draws, needed = (null or {}).get("n_draws", 0), draws_needed(env.alpha, family=1)
    if estimate.n_clusters < FEWEST:
        verdict, why = Verdict.INCONCLUSIVE, f"{estimate.n_clusters} {units} cannot decide; give at least {FEWEST}"
    elif by_inputs is Verdict.FAIL:
        verdict, why = Verdict.FAIL, f"surely under the minimum of {minimum:g}"
    elif null is not None and draws < needed:
        verdict, why = Verdict.INCONCLUSIVE, too_few_draws(draws, needed, env.alpha)
    elif null is not None and null["p_adjusted"] > env.alpha and estimate.estimate >= minimum:
        verdict, why = by_null(null, units)
    elif by_inputs is Verdict.INCONCLUSIVE:
        verdict, why = Verdict.INCONCLUSIVE, more_of(estimate, minimum, units=units)
    else:
        verdict, why = Verdict.PASS, ""
    return verdict, why


def by_null(null: Mapping[str, Any], units: str) -> tuple[Verdict, str]:
    """Return the verdict on what is not surely more than random directions do, and why.

    FAIL where they clearly do as well. Between that and the level nothing is shown either way.

    Args:
        null: what `claims.null_evidence` says.
        units: what nulls read, such as `cases`.
    """
    if null["p"] >= CLEARLY_NULL:
        return Verdict.FAIL, f"random directions do as well ({standing(null)})"
    more = f"let nulls read more {units} (`null_tokens`), or draw more (`draws`)"
    return Verdict.INCONCLUSIVE, f"not clearly more than random directions ({standing(null)}); {more}"


def more_of(estimate: Estimate, minimum: float, *, units: str) -> str:
    """Return how many `units` would decide, if the effect is as large as it looks and at least the minimum."""
    n = estimate.n_clusters
    if not estimate.se:
        return f"{n} {units} do not decide; add more"
    effect = max(abs(estimate.estimate), minimum)
    return f"{n} {units} do not decide; about {max(clusters_needed(estimate.se * n**0.5, effect), n + 1)} would"
