"""From verdicts to one number: the composite score, how much of it was decided, and its band (DESIGN 4.9).

A number invites being read alone, so two things keep it honest. What was not decided is left out and lowers the
coverage, never the score. And the band follows from what was shown: an adapter that is no more than its nulls is
`noise` however harmless it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from dlm_sway.core.result import Category, ProbeResult, Verdict
from dlm_sway.suite.measured import claims_of
from dlm_sway.suite.spec import WEIGHTS

Band: TypeAlias = Literal["noise", "undecided", "weak", "partial", "healthy"]

_LEFT_OUT: Final = frozenset({Verdict.SKIP, Verdict.INCONCLUSIVE})
_SHOWS: Final = frozenset({"adherence", "attribution"})
"""Categories whose claims only an adapter that learned something passes; a harmless one passes the others too."""
_WEAK, _PARTIAL = 0.3, 0.6
_DIGITS: Final = 12
"""A weighted mean of equal numbers misses them by a last bit, and one that stands on a threshold reaches it."""


@dataclass(frozen=True, slots=True)
class Score:
    """The composite of a suite.

    Attributes:
        score: in [0, 1], or None when nothing was scored.
        components: the mean score of each category that has one.
        coverage: share of the weight of the suite's categories that was decided, in [0, 1].
        band: the score in a word.
    """

    score: float | None
    components: dict[Category, float]
    coverage: float
    band: Band


def weights_with(own: Mapping[Category, float]) -> dict[Category, float]:
    """Return the weight of each category; those that `own` does not name keep theirs."""
    return {**WEIGHTS, **own}


def composite(
    results: Sequence[ProbeResult], categories: Mapping[str, Category], *, weights: Mapping[Category, float]
) -> Score:
    """Return the composite score of results.

    An ERROR, and a FAIL that names no score, count 0. A SKIP or INCONCLUSIVE is left out. A PASS or WARN that names no
    score is information and takes no part.

    Args:
        results: one a probe.
        categories: of each result by its name; one without a category takes no part, unless it is an error.
        weights: of every category.
    """
    marks: dict[Category, list[float]] = {}
    asked: dict[Category, int] = {}
    for result in results:
        category = categories.get(result.name)
        if category is None or not weights.get(category, 0.0):
            continue
        mark = _mark(result)
        if mark is None and result.verdict not in _LEFT_OUT:
            continue
        asked[category] = asked.get(category, 0) + 1
        if mark is not None:
            marks.setdefault(category, []).append(mark)
    components = {category: sum(found) / len(found) for category, found in marks.items()}
    score = _mean(components, weights)
    coverage = _mean({c: len(marks.get(c, ())) / n for c, n in asked.items()}, weights) or 0.0
    return Score(score, components, coverage, _band(score, results, categories))


def _mean(values: Mapping[Category, float], weights: Mapping[Category, float]) -> float | None:
    """Return the weighted mean; None of no values."""
    largest = max((weights[c] for c in values), default=0.0)
    if not largest:
        return None
    shares = {c: weights[c] / largest for c in values}  # weights may be near the end of floats, and their sum beyond
    return round(sum(shares[c] * value for c, value in values.items()) / sum(shares.values()), _DIGITS)


def _mark(result: ProbeResult) -> float | None:
    if result.verdict is Verdict.ERROR:
        return 0.0
    if result.verdict in _LEFT_OUT:
        return None
    if result.verdict is Verdict.FAIL and result.score is None:
        return 0.0
    return result.score


def _band(score: float | None, results: Sequence[ProbeResult], categories: Mapping[str, Category]) -> Band:
    shown = _shown(results, categories)
    if shown is Verdict.FAIL:
        return "noise"
    if shown is not Verdict.PASS or score is None:
        return "undecided"
    if score < _WEAK:
        return "weak"
    # A suite with a failure in it is never called healthy, whatever its other parts make of the mean.
    clean = not any(r.verdict in (Verdict.FAIL, Verdict.ERROR) for r in results)
    return "healthy" if score >= _PARTIAL and clean else "partial"


def _shown(results: Sequence[ProbeResult], categories: Mapping[str, Category]) -> Verdict:
    """Return whether the adapter was shown to be more than its nulls: PASS, FAIL, or INCONCLUSIVE.

    The claim `learned` says so itself. In a suite without it, one probe that only a learned change passes will do.
    """
    learned = list(_claims(results, "learned"))
    found = learned or [r.verdict for r in results if categories.get(r.name) in _SHOWS]
    if Verdict.FAIL in learned:
        return Verdict.FAIL
    if Verdict.PASS in found:
        return Verdict.PASS
    return Verdict.FAIL if Verdict.FAIL in found else Verdict.INCONCLUSIVE


def _claims(results: Iterable[ProbeResult], name: str) -> Iterable[Verdict]:
    for result in results:
        if (claim := claims_of(result).get(name)) is not None:
            yield claim.verdict
