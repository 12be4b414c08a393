from __future__ import annotations

import itertools

import pytest

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import Verdict, worst
from dlm_sway.suite.result import QUESTIONS, CheckResult

ORDER = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.PASS)


def test_the_worst_answer_is_the_verdict_and_a_skip_does_not_count() -> None:
    for one, other in itertools.product(ORDER, ORDER):
        assert worst([one, Verdict.SKIP, other]) is min(one, other, key=ORDER.index)
    assert worst([Verdict.SKIP]) is worst([]) is Verdict.SKIP


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.PASS, ExitCode.PASS),
        (Verdict.WARN, ExitCode.PASS),
        (Verdict.FAIL, ExitCode.FAIL),
        (Verdict.ERROR, ExitCode.ERROR),
        (Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
        (Verdict.SKIP, ExitCode.INCONCLUSIVE),
    ],
)
def test_every_verdict_has_an_exit_code(verdict: Verdict, code: ExitCode) -> None:
    assert CheckResult(adapter="a", base="b", verdict=verdict, questions={}).exit_code is code


def test_the_questions_are_asked_in_the_order_of_the_readme() -> None:
    assert QUESTIONS == ("sound", "applied", "learned", "on_target", "generalises", "no_harm")
