"""What breaks a gate: a failure, an error, a score or a coverage under its threshold, and on demand what is undecided.

Everything is judged anew from the verdicts and scores of the probes, also for a result that was read from a file: the
score, the coverage and the verdict that stand in it are not believed. A probe that was asked and whose answer is gone
closes the gate too: without it a result would pass by what was cut out of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import Category, ProbeResult, SuiteResult, Verdict
from dlm_sway.suite.score import Score, composite, weights_with
from dlm_sway.suite.spec import WEIGHTS

Why: TypeAlias = Literal["error", "fail", "score", "coverage", "inconclusive", "missing"]

_THRESHOLD: Final = 0.6
_EXIT: Final[Mapping[Why, ExitCode]] = {
    "error": ExitCode.ERROR,
    "fail": ExitCode.FAIL,
    "score": ExitCode.FAIL,
    "coverage": ExitCode.INCONCLUSIVE,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "missing": ExitCode.INCONCLUSIVE,
}
_COUNTS: Final = frozenset({Verdict.PASS, Verdict.WARN})
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
        part: options of the run that left a part of the suite unasked, such as `--only`.
    """

    breaches: tuple[Breach, ...]
    score: Score
    threshold: float
    coverage_threshold: float
    part: tuple[str, ...] = ()

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
    categories = _categories(asked)
    score = composite(result.probes, categories, weights=weights_with(own))
    found = [breach for probe in result.probes if (breach := _of_probe(probe, strict=strict))]
    found += _of_loss(asked, categories, result.probes)
    found += _of_score(score, lowest) + _of_coverage(score, share)
    ranked = sorted(found, key=lambda breach: _WORST_FIRST.index(_EXIT[breach.why]))
    return Gate(tuple(ranked), score, lowest, share, _part(asked))


def _of_probe(probe: ProbeResult, *, strict: bool) -> Breach | None:
    whys: dict[Verdict, Why] = {Verdict.ERROR: "error", Verdict.FAIL: "fail"}
    if strict:
        whys[Verdict.INCONCLUSIVE] = "inconclusive"
    why = whys.get(probe.verdict)
    return None if why is None else Breach(why, probe.name, probe.message or str(probe.verdict))


def _of_loss(
    asked: Mapping[str, Any], categories: Mapping[str, Category], probes: Sequence[ProbeResult]
) -> Iterator[Breach]:
    """Yield what a run had and the result has lost: an answer, or what a score counts for."""
    known, names = asked.get("categories"), {probe.name for probe in probes}
    for name in known if isinstance(known, Mapping) else ():
        if name not in names:
            yield Breach("missing", str(name), "it was asked, and the result has no answer of it; run the suite again")
    for probe in probes if categories else ():  # with none at all nothing is scored, and the coverage says so
        if probe.name not in categories and probe.score is not None and probe.verdict in _COUNTS:
            yield Breach("missing", probe.name, "the result does not say what it counts for; run the suite again")


def _of_score(score: Score, lowest: float) -> list[Breach]:
    if score.score is None or score.score >= lowest:
        return []  # with nothing scored the coverage is 0, which says so
    reached, needed = _apart(score.score, lowest, "f")
    return [Breach("score", "score", f"the score of {reached} is under {needed}")]


def _of_coverage(score: Score, share: float) -> list[Breach]:
    if score.score is None:
        return [Breach("coverage", "coverage", "nothing was scored")]
    if score.coverage >= share:
        return []
    reached, needed = _apart(score.coverage, share, "%")
    return [Breach("coverage", "coverage", f"{reached} of what the score is made of was decided, under {needed}")]


def _apart(reached: float, needed: float, form: Literal["f", "%"]) -> tuple[str, str]:
    """Return two numbers with as many digits as tell them apart: nobody can mend a 0.60 that is under 0.60."""
    first = 2 if form == "f" else 0
    texts = ((f"{reached:.{n}{form}}", f"{needed:.{n}{form}}") for n in range(first, first + 9))
    return next((both for both in texts if both[0] != both[1]), (str(reached), str(needed)))


def _part(asked: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"--{name}" for name in ("only", "skip", "limit") if asked.get(name))


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
