from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.adapters.inspection import AdapterFacts, Fault, Inspection, ModuleRow
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.suite.questions import answers, is_blocked, not_asked, not_finite, sound
from dlm_sway.suite.request import Request
from dlm_sway.suite.result import QUESTIONS


def _inspection(*faults: Fault, **fields: Any) -> Inspection:
    facts = AdapterFacts(peft_type="LORA", base_recorded="b", n_tensors=2)
    modules = (ModuleRow(module="q", kind="linear"),)
    return Inspection(adapter="a", base="b", facts=facts, faults=faults, modules=modules, **fields)


def _fault(code: str = "zero_b", severity: str = "fail", message: str = "bad") -> Fault:
    return Fault(code=code, severity=severity, message=message)


def _request(**files: Any) -> Request:
    return Request(
        **{"adapter": None, "data": None, "held_out": None, "pairs": (), "n_draws": 19, **files},
        seed=0,
        quick=False,
        batch_tokens=None,
    )


def _result(kind: str, verdict: str, claims: dict[str, Any] | None = None, message: str = "") -> ProbeResult:
    evidence = {"claims": claims} if claims else {}
    return ProbeResult(name=kind, kind=kind, verdict=Verdict(verdict), evidence=evidence, message=message)


def test_a_sound_adapter_says_what_was_looked_at() -> None:
    found = sound(_inspection())
    assert (found.verdict, found.effect, found.unit) == (Verdict.PASS, 0.0, "faults")
    assert found.message == "2 tensors on 1 modules, no fault found"


def test_three_faults_are_shown_and_the_rest_counted() -> None:
    found = sound(_inspection(*[_fault(message=f"fault {i}") for i in range(5)], _fault(severity="info")))
    assert (found.verdict, found.effect) == (Verdict.FAIL, 5.0)
    assert found.message == "fault 0; fault 1; fault 2 (and 2 more)"


def test_an_adapter_that_was_not_checked_against_a_base_is_not_said_to_fit_it() -> None:
    unread = _fault("base_not_checked", "info", "the base is not here: nothing was checked against a base")
    found = sound(_inspection(unread, not_done=("wrong_shape",)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "nothing was checked against a base" in found.message


@pytest.mark.parametrize(
    ("code", "severity", "blocked"),
    [
        ("not_finite", "fail", True),
        ("not_finite", "warn", False),
        ("zero_b", "fail", False),
        ("no_weights", "fail", True),
    ],
)
def test_only_faults_that_make_numbers_meaningless_block_the_model(code: str, severity: str, *, blocked: bool) -> None:
    assert is_blocked(_inspection(_fault(code, severity))) is blocked


def test_not_asked_and_not_finite_answer_every_question_of_the_model() -> None:
    assert tuple(not_asked("why")) == QUESTIONS[1:]
    assert {q.verdict for q in not_asked("why").values()} == {Verdict.SKIP}
    found = not_finite("NaN in the base")
    assert tuple(found) == QUESTIONS[1:]
    assert [name for name, q in found.items() if q.verdict is Verdict.ERROR] == ["applied"]
    assert found["applied"].message == "NaN in the base"


def test_claims_become_answers_and_a_probe_without_claims_an_error() -> None:
    results = [
        _result("delta_kl", "fail", {"applied": {"verdict": "pass"}, "learned": {"verdict": "fail", "p": 0.5}}),
        _result("target_gain", "error", message="no luck"),
        _result("external_perplexity", "error", message="none either"),
    ]
    found = answers(results, _request(data="d", held_out="h"))
    assert set(found) == set(QUESTIONS[1:])
    assert (found["applied"].verdict, found["learned"].p) == (Verdict.PASS, 0.5)
    for name, message in (("on_target", "no luck"), ("generalises", "no luck"), ("no_harm", "none either")):
        assert (found[name].verdict, found[name].message) == (Verdict.ERROR, message)


def test_what_was_not_given_is_a_skip_even_if_its_probe_failed() -> None:
    found = answers([_result("target_gain", "error", message="no luck")], _request(data="d"))
    assert found["on_target"].verdict is Verdict.ERROR
    assert found["generalises"].verdict is Verdict.SKIP
    assert answers([], _request())["on_target"].verdict is Verdict.SKIP
