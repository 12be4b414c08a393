"""`sway compare`: which of several results is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import SuiteResult
from dlm_sway.suite.comparability import remarks_on
from dlm_sway.suite.compare_result import Candidate, Comparison, Contrast, Remark
from dlm_sway.suite.contrast import Draft, decided, drafts
from dlm_sway.suite.read import read_any
from dlm_sway.suite.regressions import regressions_of
from dlm_sway.suite.result import CheckResult
from dlm_sway.suite.standing import Ranked, ranked

Comparable: TypeAlias = SuiteResult | CheckResult | Path | str


def compare(
    reference: Comparable, *others: Comparable, names: Sequence[str] = (), alpha: float = 0.05, seed: int = 0
) -> Comparison:
    """Return how other results stand beside a reference.

    Every claim is compared on the items that both results hold, so that what is hard for both cancels; where there are
    none in common, by the intervals. All p-values of the comparison are adjusted together for the false discovery rate.

    Args:
        reference: a result of a suite or of a check, or the JSON file of one.
        *others: those to set beside it, at least one.
        names: what to call them, the reference first; else their files or adapters give the names.
        alpha: two-sided level of every decision, after adjustment; intervals hold the rest of 1.
        seed: of bootstrap and random sign flips.

    Raises:
        BadInputError: nothing to compare with, a file that is no result, names that do not fit, a level outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise BadInputError(f"a level lies between 0 and 1, got {alpha}", where="compare: alpha")
    sources = (reference, *others)
    if len(sources) < 2:  # noqa: PLR2004 (a result and another)
        raise BadInputError("there is nothing to compare with", remedy="name two results or more")
    results = [read_any(source) for source in sources]
    called = _names(sources, results, names)
    first, seeds = results[0], _seeds(seed)
    remarks = [remarks_on(first, other, name) for other, name in zip(results[1:], called[1:], strict=True)]
    drafted = [
        draft
        for other, name, found in zip(results[1:], called[1:], remarks, strict=True)
        for draft in _drafts(first, other, name, found, seeds, confidence=1 - alpha)
    ]
    contrasts = decided(drafted, alpha=alpha)
    tables = _tables(dict(zip(called, results, strict=True)), remarks, seeds)
    return Comparison(
        reference=called[0],
        alpha=alpha,
        candidates=tuple(_candidate(name, result) for name, result in zip(called, results, strict=True)),
        remarks=tuple(remark for found in remarks for remark in found),
        contrasts=contrasts,
        table=tuple(row for table in tables for row in table.rows),
        selections=tuple(table.selection for table in tables if table.selection is not None),
        regressions=tuple(
            regression
            for other, name in zip(results[1:], called[1:], strict=True)
            for regression in regressions_of(first, other, name, contrasts)
        ),
    )


_Seeds: TypeAlias = Callable[[str, str], Callable[[str], np.random.Generator]]


def _seeds(seed: int) -> _Seeds:
    return lambda candidate, probe: lambda claim: stream(seed, "compare", candidate, probe, claim)


def _drafts(
    reference: SuiteResult,
    other: SuiteResult,
    name: str,
    remarks: Sequence[Remark],
    seeds: _Seeds,
    *,
    confidence: float,
) -> list[Draft]:
    theirs = {probe.name: probe for probe in other.probes}
    blocked = next((remark.message for remark in remarks if remark.level == "blocks"), None)
    found: list[Draft] = []
    for probe in reference.probes:
        missing = None if probe.name in theirs else "the candidate has no such probe"
        if (why := blocked or missing) is not None:
            blank = Contrast(
                candidate=name, probe=probe.name, kind=probe.kind, claim=probe.kind, outcome="not comparable"
            )
            found.append(Draft(blank.model_copy(update={"message": why})))
        else:
            found += drafts(probe, theirs[probe.name], name, seeds(name, probe.name), confidence=confidence)
    return found


def _tables(results: dict[str, SuiteResult], remarks: Sequence[Sequence[Remark]], seeds: _Seeds) -> list[Ranked]:
    """Return the tables of all probes that every result has; none where one of them cannot be set beside the rest."""
    if any(remark.level == "blocks" for found in remarks for remark in found):
        return []
    by_name = {name: {probe.name: probe for probe in result.probes} for name, result in results.items()}
    found: list[Ranked] = []
    for probe in next(iter(by_name.values())):
        if all(probe in probes for probes in by_name.values()):
            found += ranked({name: probes[probe] for name, probes in by_name.items()}, seeds("", probe))
    return found


def _candidate(name: str, result: SuiteResult) -> Candidate:
    return Candidate(name=name, adapter=result.adapter, base=result.base, verdict=result.verdict, score=result.score)


def _names(sources: Sequence[Comparable], results: Sequence[SuiteResult], given: Sequence[str]) -> list[str]:
    """Return a name of its own for each result."""
    if given:
        if len(given) != len(results) or len(set(given)) != len(results):
            raise BadInputError(f"{len(given)} names for {len(results)} results", remedy="give each a name of its own")
        return list(given)
    for make in (_short, _long):
        names = [make(source, result) for source, result in zip(sources, results, strict=True)]
        if len(set(names)) == len(names) and all(names):
            return names
    return [chr(ord("A") + i) if i < 26 else f"result {i + 1}" for i in range(len(results))]  # noqa: PLR2004 (letters)


def _short(source: Comparable, result: SuiteResult) -> str:
    return Path(source).stem if isinstance(source, Path | str) else Path(result.adapter or "").name


def _long(source: Comparable, result: SuiteResult) -> str:
    return str(source) if isinstance(source, Path | str) else result.adapter or ""
