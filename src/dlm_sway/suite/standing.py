"""All results of a claim in one table, and whether the best of them is more than the choice of the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dlm_sway.core.result import ProbeResult
from dlm_sway.stats.difference import lead_by_chance, paired_difference
from dlm_sway.stats.paired import gain
from dlm_sway.suite.compare_result import Selection, Standing
from dlm_sway.suite.measured import Series, series_of, shared

MANY: Final = 3
"""Candidates from which on choosing the best of them needs a warning."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The table of one claim, best first, and the word about its first row where there are many."""

    rows: tuple[Standing, ...]
    selection: Selection | None


def ranked(probes: Mapping[str, ProbeResult], rng: Callable[[str], np.random.Generator]) -> tuple[Ranked, ...]:
    """Return a table for each claim of a probe that every result answers item by item.

    Args:
        probes: the same probe in each result, by the result's name.
        rng: makes the random stream of a claim.
    """
    series = {name: series_of(probe) for name, probe in probes.items()}
    first = next(iter(series.values()))
    found: list[Ranked] = []
    for claim in first:
        each = {name: s[claim] for name, s in series.items() if claim in s}
        alike = len({(s.unit, s.better) for s in each.values()}) == 1
        if len(each) == len(probes) and alike and first[claim].better is not None:
            table = _table(next(iter(probes.values())).name, claim, each, rng(claim))
            found += [table] if table is not None else []
    return tuple(found)


def _table(probe: str, claim: str, series: Mapping[str, Series], rng: np.random.Generator) -> Ranked | None:
    unit, better = next((s.unit, s.better) for s in series.values())
    common = shared(list(series.values()))
    if not len(common):
        return None
    estimates = [gain(total, common.weight, common.clusters, rng=rng) for total in common.totals]
    names, sign = list(series), 1 if better == "higher" else -1
    order = sorted(range(len(names)), key=lambda i: -sign * estimates[i].estimate)
    best = common.totals[order[0]]
    rows = []
    for i in order:
        apart = None
        if i != order[0]:
            apart = paired_difference(best, common.totals[i], common.weight, common.clusters, rng=rng)
        rows.append(
            Standing(
                probe=probe,
                claim=claim,
                candidate=names[i],
                unit=unit,
                value=estimates[i].estimate,
                se=estimates[i].se,
                difference=apart.estimate if apart else 0.0,
                se_difference=apart.se if apart else None,
                n_items=len(common),
            )
        )
    return Ranked(tuple(rows), _selection(rows))


def _selection(rows: Sequence[Standing]) -> Selection | None:
    """Return whether the best leads by more than the best of as many equal ones would."""
    apart = [row.se_difference for row in rows[1:] if row.se_difference]
    if len(rows) < MANY or not apart:
        return None
    lead = abs(rows[0].value - float(np.mean([row.value for row in rows])))
    chance = lead_by_chance(len(rows), float(np.median(apart)) / 2**0.5)
    artefact = lead <= chance
    best, unit = rows[0].candidate, rows[0].unit
    words = (
        f"leads the mean of {len(rows)} by {lead:.3g} {unit}; of as many equal ones the best stays under {chance:.3g}"
    )
    verdict = "being the best may be no more than having been chosen" if artefact else "more than choosing explains"
    return Selection(
        probe=rows[0].probe,
        claim=rows[0].claim,
        best=best,
        lead=lead,
        by_chance=chance,
        artefact=artefact,
        message=f"{best} {words}: {verdict}",
    )
