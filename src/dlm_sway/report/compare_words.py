"""The view model of a comparison: what every rendering of it says, in words and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dlm_sway.core.result import Verdict
from dlm_sway.report.numbers import figure, interval, p_value
from dlm_sway.report.text import clean
from dlm_sway.suite.compare_result import Comparison, Contrast, Standing


def verdict_of(found: Comparison) -> Verdict:
    """Return how a comparison ends in one word: a regression fails, nothing to compare is inconclusive."""
    if found.regressions:
        return Verdict.FAIL
    return Verdict.PASS if found.comparable else Verdict.INCONCLUSIVE


def headline(found: Comparison, candidate: str) -> str:
    """Return what became of one candidate, such as `b against a: 1 better, 2 no decided difference`."""
    count = Counter(c.outcome for c in found.contrasts if c.candidate == candidate)
    n = sum(r.candidate == candidate for r in found.regressions)
    parts = [f"{count[o]} {o}" for o in count] + ([f"{n} regression{'s' if n > 1 else ''}"] if n else [])
    return f"{clean(candidate)} against {clean(found.reference)}: {', '.join(parts) or 'no probe in common'}"


def name_of(row: Contrast | Standing) -> str:
    """Return probe and claim."""
    return clean(row.probe if row.claim in (row.probe, getattr(row, "kind", None)) else f"{row.probe}: {row.claim}")


def difference_of(contrast: Contrast) -> str:
    """Return the difference with its interval and p, empty where nothing was compared."""
    if contrast.difference is None:
        return ""
    ends = contrast.interval or ()
    text = figure(contrast.difference, like=ends, signed=True)
    unit = f" {clean(contrast.unit)}" if contrast.unit else ""
    return f"{text}{unit} {interval(contrast.interval, like=(contrast.difference,), signed=True)}".rstrip()


def p_of(contrast: Contrast) -> str:
    """Return p as it was decided with, and alone where that is another."""
    if contrast.p is None or contrast.p_adjusted is None:
        return ""
    alone, all_ = p_value(contrast.p), p_value(contrast.p_adjusted)
    return f"p {all_}" if alone == all_ else f"p {all_} ({alone} alone)"


def with_error(value: float, se: float | None, *, signed: bool = False) -> str:
    """Return a value and its standard error."""
    shown = figure(value, like=(se or 0.0,), signed=signed)
    return shown if se is None else f"{shown} (SE {figure(se, like=(value,))})"


def claims_in(rows: Iterable[Standing]) -> dict[tuple[str, str], list[Standing]]:
    """Return the rows of a table by probe and claim."""
    found: dict[tuple[str, str], list[Standing]] = {}
    for row in rows:
        found.setdefault((row.probe, row.claim), []).append(row)
    return found
