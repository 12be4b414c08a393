from __future__ import annotations

import math

import pytest

from dlm_sway.core.result import Question, Verdict
from dlm_sway.report.model import Row, adapter_name, headline, next_steps, rows
from dlm_sway.suite.result import CheckResult


def _result(verdict: str, adapter: str = "x/run-1", **questions: str) -> CheckResult:
    asked = {key: Question(verdict=answer) for key, answer in questions.items()}
    return CheckResult(adapter=adapter, base=None, verdict=verdict, questions=asked)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (_result("pass", sound="pass", no_harm="pass"), "run-1: sound, harmless"),
        (_result("pass", sound="pass", on_target="skip"), "run-1: sound; not asked: on target"),
        (_result("warn", sound="warn", applied="pass"), "run-1: passes, with a warning on sound"),
        (
            _result("fail", **dict.fromkeys(["sound", "applied", "learned", "on_target", "generalises"], "fail")),
            "run-1: not sound, not applied, not learned, not on target, does not generalise",
        ),
        (_result("fail", no_harm="fail", learned="pass"), "run-1: harms other text"),
        (_result("fail", extra_one="fail"), "run-1: extra one failed"),
        (_result("fail"), "run-1: a probe failed"),
        (_result("inconclusive", learned="inconclusive"), "run-1: undecided: learned"),
        (_result("error", applied="error", learned="skip"), "run-1: could not answer: applied"),
        (_result("skip", applied="skip"), "run-1: nothing could be asked"),
    ],
)
def test_the_headline_says_what_the_verdict_rests_on(result: CheckResult, line: str) -> None:
    assert headline(result) == line
    assert headline(result, name="twin") == line.replace("run-1", "twin")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/a/", "a"),
        ("C:\\runs\\a", "a"),
        (".", "."),
        ("/", "adapter"),
        ("", "adapter"),
        ("é" * 60, "é" * 39 + "…"),
    ],
)
def test_an_adapter_is_called_by_the_last_part_of_its_path(path: str, name: str) -> None:
    assert adapter_name(_result("pass", adapter=path)) == name


def test_a_row_holds_every_part_as_text(healthy: CheckResult) -> None:
    found = {row.key: row for row in rows(healthy)}
    assert list(found) == list(healthy.questions)
    assert found["on_target"] == Row(
        key="on_target",
        question="on target",
        verdict=Verdict.PASS,
        effect="+0.531 nat/token",
        interval="[+0.480, +0.602]",
        p="0.025",
        null="rotation (N1), 39 draws",
        message="T.",
    )
    assert found["no_harm"].interval == "at most +0.0610"
    assert found["generalises"].effect == ""


def test_a_number_that_is_none_or_nan_leaves_its_part_empty() -> None:
    question = Question(verdict="error", effect=math.nan, unit="nat", interval=(math.nan, 1.0), p=math.nan)
    result = CheckResult(adapter="a", base=None, verdict="error", questions={"learned": question})
    assert rows(result) == (Row("learned", "learned", Verdict.ERROR),)


def test_next_steps_keep_their_order(healthy: CheckResult) -> None:
    assert next_steps(healthy) == ("Score more control text.", "Give --held-out FILE.")
