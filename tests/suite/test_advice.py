from __future__ import annotations

import shlex

import pytest

from dlm_sway.core.result import Question, Verdict
from dlm_sway.suite.advice import next_steps
from dlm_sway.suite.result import QUESTIONS


def _steps(*, adapter: str = "runs/a", quick: bool = False, **verdicts: str) -> tuple[str, ...]:
    questions = {name: Question(verdict=Verdict(verdicts.get(name, "pass"))) for name in QUESTIONS}
    return next_steps(questions, adapter=adapter, base="org/base", quick=quick)


def test_nothing_is_left_to_do_after_six_passes() -> None:
    assert _steps() == ()


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("verdict", ["fail", "error"])
def test_every_failure_has_one_advice(name: str, verdict: str) -> None:
    steps = _steps(**{name: verdict})
    assert len(steps) == 1
    assert "{" not in steps[0]


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "applied"])
def test_every_open_question_says_what_would_decide_it(name: str) -> None:
    assert len(_steps(**{name: "inconclusive"})) == 1


def test_advice_follows_the_order_of_the_questions() -> None:
    steps = _steps(no_harm="fail", sound="warn", learned="fail")
    assert [step.split()[0] for step in steps] == ["Look", "The", "It"]


def test_what_was_not_given_is_asked_for_when_all_else_passed() -> None:
    assert "--data FILE" in _steps(on_target="skip", generalises="skip")[0]
    assert "--held-out FILE" in _steps(generalises="skip")[0]
    assert len(_steps(on_target="skip", generalises="skip", no_harm="fail")) == 1


def test_names_are_safe_to_paste_into_a_shell() -> None:
    name = "my adapter; rm -rf x"
    (step,) = _steps(adapter=name, sound="fail")
    assert shlex.quote(name) in step


def test_what_a_quick_look_left_open_is_asked_in_full_and_said_once() -> None:
    open_ones = dict.fromkeys(("learned", "on_target", "generalises", "no_harm"), "inconclusive")
    assert [step.split(":")[0] for step in _steps(quick=True, **open_ones)] == ["Ask again without --quick"]
    assert _steps(quick=True, sound="inconclusive") == _steps(sound="inconclusive")
    assert _steps(quick=True, no_harm="fail") == _steps(no_harm="fail")


def test_a_quick_look_that_few_draws_failed_is_asked_again_before_training_is() -> None:
    def steps(p: float, *, quick: bool) -> tuple[str, ...]:
        questions = {name: Question(verdict=Verdict.PASS) for name in QUESTIONS}
        questions["learned"] = Question(verdict=Verdict.FAIL, p=p)
        return next_steps(questions, adapter="a", base="b", quick=quick)

    assert steps(0.15, quick=True)[0].startswith("Ask again without --quick")
    for p, quick in ((0.2, True), (0.15, False)):
        assert steps(p, quick=quick)[0].startswith("The weights point nowhere")
