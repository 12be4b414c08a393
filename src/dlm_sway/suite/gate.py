"""What breaks a gate: a failure, an error, a score or a coverage under its threshold, and on demand what is undecided.

Everything is judged anew from the verdicts and scores of the probes, also for a result that was read from a file: the
score, the coverage and the verdict that stand in it are not believed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import Category, ProbeResult, SuiteResult, Verdict
from dlm_sway.suite.score import Score, composite, weights_with
from dlm_sway.suite.spec import WEIGHTS

Why: TypeAlias = Literal["error", "fail", "score", "coverage", "inconclusive"]

_THRESHOLD: Final = 0.6
_EXIT: Final[Mapping[Why, ExitCode]] = {
    "error": ExitCode.ERROR,
    "fail": ExitCode.FAIL,
    "score": ExitCode.FAIL,
    "coverage": ExitCode.INCONCLUSIVE,
    "inconclusive": ExitCode.INCONCLUSIVE,
}
_WORST_FIRST: Final = (ExitCode.ERROR, ExitCode.FAIL, ExitCode.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that closes a gate.

    Attributes:
        why: the sort of thing.
        name: the probe, or `score` or `coverage`.
        message: what was found, in a sentence.
    """

    why: Why
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a result passes.

    Attributes:
        breaches: what closes it, worst first; empty when it is open.
        score: the composite, made anew.
        threshold: the score that was asked for.
        coverage_threshold: the coverage that was asked for.
    """

    breaches: tuple[Breach, ...]
    score: Score
    threshold: float
    coverage_threshold: float

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that `sway gate` ends with: that of the worst breach."""
        found = {_EXIT[breach.why] for breach in self.breaches}
        return next((code for code in _WORST_FIRST if code in found), ExitCode.PASS)


def gate(
    result: SuiteResult,
    *,
    threshold: float | None = None,
    coverage_threshold: float | None = None,
    weights: Mapping[Category, float] | None = None,
    strict: bool = False,
) -> Gate:
    """Return what closes the gate for a result.

    Args:
        result: of a suite, from a run or from a file.
        threshold: the lowest score that passes; what the suite asked for when None, else 0.6.
        coverage_threshold: the lowest share of decided weight that passes; likewise.
        weights: what a category counts; what the suite said when None.
        strict: whether a probe that is inconclusive closes the gate too.
    """
    asked = _asked(result)
    lowest = _number(asked.get("score_threshold"), _THRESHOLD) if threshold is None else threshold
    share = _number(asked.get("coverage_threshold"), _THRESHOLD) if coverage_threshold is None else coverage_threshold
    own = {**_weights(asked), **(weights or {})}
    score = composite(result.probes, _categories(asked), weights=weights_with(own))
    found = [breach for probe in result.probes if (breach := _of_probe(probe, strict=strict))]
    found += _of_score(score, lowest) + _of_coverage(score, share)
    ranked = sorted(found, key=lambda breach: _WORST_FIRST.index(_EXIT[breach.why]))
    return Gate(tuple(ranked), score, lowest, share)


def _of_probe(probe: ProbeResult, *, strict: bool) -> Breach | None:
    whys: dict[Verdict, Why] = {Verdict.ERROR: "error", Verdict.FAIL: "fail"}
    if strict:
        whys[Verdict.INCONCLUSIVE] = "inconclusive"
    why = whys.get(probe.verdict)
    return None if why is None else Breach(why, probe.name, probe.message or str(probe.verdict))


def _of_score(score: Score, lowest: float) -> list[Breach]:
    if score.score is None or score.score >= lowest:
        return []  # with nothing scored the coverage is 0, which says so
    return [Breach("score", "score", f"the score of {score.score:.2f} is under {lowest:.2f}")]


def _of_coverage(score: Score, share: float) -> list[Breach]:
    if score.coverage >= share and score.score is not None:
        return []
    what = f"{score.coverage:.0%} of what the score is made of was decided, under {share:.0%}"
    return [Breach("coverage", "coverage", "nothing was scored" if score.score is None else what)]


def _asked(result: SuiteResult) -> Mapping[str, Any]:
    found = result.provenance.get("suite")
    return found if isinstance(found, Mapping) else {}


def _categories(asked: Mapping[str, Any]) -> dict[str, Category]:
    found = asked.get("categories")
    known: dict[str, Category] = {str(category): category for category in WEIGHTS}
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {str(name): known[category] for name, category in pairs if category in known}


def _weights(asked: Mapping[str, Any]) -> dict[Category, float]:
    found = asked.get("weights")
    given = found if isinstance(found, Mapping) else {}
    return {category: _number(given.get(category), weight) for category, weight in WEIGHTS.items()}


def _number(value: Any, otherwise: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return float(min(value, sys.float_info.max)) if number else otherwise  # an integer in a file may be beyond floats
