"""Reads results back from the JSON files that runs and checks wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Question, SuiteResult, Verdict, worst
from dlm_sway.suite.measured import claimed_verdicts, claims_of
from dlm_sway.suite.result import QUESTIONS, SCHEMA_VERSION, CheckResult
from dlm_sway.suite.version import upgraded

_MAX_BYTES: Final = 256 * 2**20
_REMEDY: Final = "name a file that `sway run --json` or `sway check --json` wrote"
_OF_SUITE: Final = "name a file that `sway run SPEC --json PATH` wrote"
_SOUND: Final = QUESTIONS[0]


def read_any(source: SuiteResult | CheckResult | Path | str) -> SuiteResult:
    """Return a result as that of a suite, whatever it is of and wherever it stands.

    Raises:
        BadInputError: the file cannot be read, is no result, or was written by a newer sway.
    """
    if isinstance(source, SuiteResult):
        return source
    if isinstance(source, CheckResult):
        return _of_check(source)
    path = Path(source).expanduser()
    return _validated(_document(path, _REMEDY), path, _REMEDY)


def read_suite(path: Path) -> SuiteResult:
    """Return the result of a suite; that of a check is none, since its verdict rests on more than its probes.

    Raises:
        BadInputError: the file cannot be read, is no such result, was written by a newer sway, or a probe's verdict in
            it is not the one that its claims make.
    """
    raw = _document(path.expanduser(), _OF_SUITE)
    if "questions" in raw:
        raise BadInputError("is the result of a check, not of a suite", where=path, remedy=_OF_SUITE)
    found = _validated(raw, path, _OF_SUITE)
    for probe in found.probes:
        _require_own_verdict(probe, path)
    return found


def _require_own_verdict(probe: ProbeResult, path: Path) -> None:
    """Return unless a probe's verdict is not the worst of its claims, as every probe makes it: one was changed.

    Raises:
        BadInputError: it is not.
    """
    verdicts = claimed_verdicts(probe)
    if verdicts and (made := worst(verdicts)) is not probe.verdict:
        what = f"the verdict of probe `{probe.name}` is {probe.verdict}, and its claims say {made}"
        raise BadInputError(what, where=path, remedy="name the result as it was written, or run the suite again")


def _validated(raw: dict[str, Any], path: Path, remedy: str) -> SuiteResult:
    raw = upgraded(raw, newest=SCHEMA_VERSION, where=path, remedy=remedy)
    try:
        found = _of_check(CheckResult.model_validate(raw)) if "questions" in raw else SuiteResult.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        what = f"is no result: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInputError(what, where=path, remedy=remedy) from None
    return _usable(found, path, remedy)


def _usable(result: SuiteResult, path: Path, remedy: str) -> SuiteResult:
    """Return the result if each of its scores can be one, and stands for a probe of its own: a gate believes them.

    Raises:
        BadInputError: one is outside [0, 1], or two probes have one name.
    """
    names = [probe.name for probe in result.probes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInputError(f"is no result: two probes are called `{twice}`", where=path, remedy=remedy)
    named = {"score": result.score, "coverage": result.coverage}
    named |= {f"components.{name}": value for name, value in result.components.items()}
    named |= {f"probes.{i}.score": probe.score for i, probe in enumerate(result.probes)}
    for where, value in named.items():
        if value is not None and not 0 <= value <= 1:
            what = f"is no result: {where} is {value:g}, and a score lies in [0, 1]"
            raise BadInputError(what, where=path, remedy=remedy)
    return result


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _of_check(result: CheckResult) -> SuiteResult:
    """Return a check as a suite: its probes, and before them as probes what it answered without any."""
    return SuiteResult(
        name="check",
        base=result.base,
        adapter=result.adapter,
        next_steps=result.next_steps,
        probes=(*_without_a_probe(result), *result.probes),
        provenance=result.provenance,
        timing=result.timing,
    )


def _without_a_probe(result: CheckResult) -> tuple[ProbeResult, ...]:
    """Return the answer about the files, which no probe gives, and each error that no probe is in or claims."""
    claimed = {name for probe in result.probes for name in claims_of(probe)}
    said = {probe.message for probe in result.probes if probe.verdict is Verdict.ERROR}

    def is_alone(name: str, answer: Question) -> bool:
        return answer.verdict is Verdict.ERROR and name not in claimed and answer.message not in said

    return tuple(
        ProbeResult(name=name, kind=name, verdict=answer.verdict, message=answer.message)
        for name, answer in result.questions.items()
        if name == _SOUND or is_alone(name, answer)
    )


def _document(path: Path, remedy: str) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            raw = handle.read(_MAX_BYTES + 1)
    except OSError as e:
        raise BadInputError(f"cannot be read: {e.strerror}", where=path, remedy=remedy) from None
    if len(raw) > _MAX_BYTES:
        raise BadInputError("is too large for a result", where=path, remedy=remedy)
    try:
        found = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadInputError("is no JSON", where=path, remedy=remedy) from None
    if not isinstance(found, dict):
        raise BadInputError("is no result", where=path, remedy=remedy)
    return found
