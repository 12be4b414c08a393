"""What probes of harm share: looks on the way to the last item, and bounds by stratum that hold for all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.result import Verdict
from dlm_sway.stats.equivalence import NonInferiority, non_inferiority
from dlm_sway.stats.sequential import pocock_critical

FEWEST: Final = 30
"""Clusters, such as passages, below which harm is never ruled out: a rare large loss is not seen (simulated)."""
LAST_EARLY: Final = 0.8  # share of the items beyond which there is no look but the last


def looks(n: int, early: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of items after which to look: those of `early` that are well before the end, and the end."""
    # A look just before the last one would cost level and tell nothing.
    return (*(k for k in early if k <= LAST_EARLY * n), n)


@lru_cache(maxsize=64)
def critical_value(at: tuple[int, ...], *, alpha: float) -> float:
    """Return by how many standard errors a bound must clear the margin at each of these looks (Pocock)."""
    return pocock_critical([k / at[-1] for k in at], alpha=alpha)


def by_stratum(
    loss: npt.NDArray[np.float64],
    weight: npt.NDArray[np.int64],
    clusters: Sequence[str],
    strata: Sequence[str],
    *,
    margin: float,
    alpha: float,
    rng: Callable[[str], np.random.Generator],
) -> dict[str, NonInferiority]:
    """Return the loss of each stratum, by name, with bounds that hold for all of them together (Sidak).

    Args:
        loss: float64[n], summed loss of each item; positive is harm.
        weight: int64[n], what it is divided by, such as tokens.
        clusters: what varies together.
        strata: the stratum of each item.
        margin: the largest loss that counts as no harm.
        alpha: one-sided level over all strata.
        rng: makes the random stream of a stratum.
    """
    names = np.array(strata)
    alone = sorted(set(names.tolist()))
    level = 1 - (1 - alpha) ** (1 / len(alone))
    found: dict[str, NonInferiority] = {}
    for name in alone:
        mask = names == name
        owners = [c for c, own in zip(clusters, mask, strict=True) if own]
        df = len(set(owners)) - 1
        found[name] = non_inferiority(
            loss[mask],
            weight[mask],
            owners,
            margin=margin,
            alpha=level,
            critical=float(special.stdtrit(df, 1 - level)) if df else None,
            rng=rng(name),
        )
    return found


def stratum_row(found: NonInferiority) -> dict[str, Any]:
    """Return the loss of a stratum as JSON values."""
    return {"loss": found.estimate, "lower": found.lower, "upper": found.upper, "decision": found.decision}


def judged(overall: NonInferiority, harmed: Sequence[str], *, unit: str, items: str) -> tuple[Verdict, str]:
    """Return the verdict on "no harm" and the clause that says why.

    Args:
        overall: the bounds over all items.
        harmed: strata that surely lost more than the margin, as a reader sees them.
        unit: of the loss.
        items: what more of would decide.
    """
    low, high, margin = overall.lower, overall.upper, f"the margin of {overall.margin} {unit}".rstrip()
    if overall.decision == "outside":
        return Verdict.FAIL, f"surely over {margin} (at least {low:+.3f})"
    if harmed:
        # Certain harm to one stratum is harm, whether or not the average over all of them is decided.
        return Verdict.FAIL, f"surely over {margin} on: {', '.join(harmed)}"
    if overall.decision == "undecided":
        return Verdict.INCONCLUSIVE, f"neither under nor over {margin}; {_need(overall, items)}"
    return Verdict.PASS, f"surely under the margin (bound {high:+.3f})" if high is not None else ""


def _need(overall: NonInferiority, items: str) -> str:
    if overall.n_to_decide:
        return f"about {overall.n_to_decide:,} {items} would decide"
    if overall.n_clusters == 1:
        return f"give more {items} than one"
    return f"it is so near that no sensible number of {items} would decide"
