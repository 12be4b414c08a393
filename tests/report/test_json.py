from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.report.json import check_document, dumps, to_json
from dlm_sway.suite.result import QUESTIONS, CheckResult


def _strict(text: str) -> dict[str, object]:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_the_document_has_the_promised_shape(twin: CheckResult) -> None:
    text = to_json(twin)
    document = _strict(text)
    assert text.endswith("}\n")
    assert next(iter(document)) == "schema_version"
    assert document["verdict"] == "fail"
    assert list(document["questions"]) == list(QUESTIONS)  # type: ignore[call-overload]
    fields = ["verdict", "effect", "unit", "interval", "p", "null", "message"]
    assert all(list(question) == fields for question in document["questions"].values())  # type: ignore[attr-defined]


def test_a_result_comes_back_from_its_json(twin: CheckResult) -> None:
    finite = {**twin.questions, "no_harm": Question(verdict="pass", interval=(0.1, 0.2))}
    result = twin.model_copy(update={"questions": finite})
    assert CheckResult.model_validate_json(to_json(result)) == result


def test_equal_results_give_equal_bytes_whatever_the_order_they_were_filled_in(healthy: CheckResult) -> None:
    turned = healthy.model_copy(
        update={
            "questions": dict(reversed(healthy.questions.items())),
            "provenance": dict(reversed(healthy.provenance.items())),
            "probes": tuple(
                p.model_copy(update={"evidence": dict(reversed(p.evidence.items()))}) for p in healthy.probes
            ),
        }
    )
    assert to_json(turned) == to_json(healthy)


def test_what_json_cannot_say_becomes_null_and_still_comes_back() -> None:
    probe = ProbeResult(
        name="a",
        kind="b",
        verdict=Verdict.ERROR,
        raw=math.nan,
        ci_95=(0.0, math.inf),
        duration_s=math.nan,
        evidence={"x": [math.inf, {"y": (1.0, -math.inf)}]},
    )
    question = Question(verdict="error", effect=math.inf, interval=(-math.inf, 0.1), p=math.nan)
    result = CheckResult(
        adapter="a",
        base=None,
        verdict="error",
        questions={"learned": question},
        probes=(probe,),
        timing={"load": math.nan, "score": 1.0},
    )
    document = _strict(to_json(result))
    back = CheckResult.model_validate_json(to_json(result))
    assert back.questions["learned"] == Question(verdict="error")
    assert (back.probes[0].raw, back.probes[0].ci_95, back.probes[0].duration_s) == (None, None, 0.0)
    assert document["probes"][0]["evidence"] == {"x": [None, {"y": [1.0, None]}]}  # type: ignore[index]
    assert document["timing"] == {"score": 1.0}


def test_arrays_and_strange_values_in_evidence_become_json(healthy: CheckResult) -> None:
    evidence = {
        "draws": np.array([1.5, np.nan], np.float32),
        "n": np.int64(3),
        "ok": np.bool_(1),
        "p": 1j,
        "v": Verdict.PASS,
    }
    probe = healthy.probes[0].model_copy(update={"evidence": evidence})
    document = check_document(healthy.model_copy(update={"probes": (probe,)}))
    assert document["probes"][0]["evidence"] == {"draws": [1.5, None], "n": 3, "ok": True, "p": "1j", "v": "pass"}
    assert CheckResult.model_validate_json(dumps(document)).probes[0].evidence["n"] == 3


def test_text_that_is_no_utf8_does_not_lose_the_report(healthy: CheckResult) -> None:
    text = to_json(healthy.model_copy(update={"adapter": "a\udc80é"}))
    assert _strict(text.encode().decode())["adapter"] == "a?é"


def test_any_document_becomes_strict_json() -> None:
    assert dumps({"x": math.nan, "y": (1, math.inf)}) == '{\n  "x": null,\n  "y": [\n    1,\n    null\n  ]\n}\n'


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(st.characters()), _JSON, max_size=4))
def test_any_evidence_gives_strict_json_that_reads_back(evidence: dict[str, object]) -> None:
    probe = ProbeResult(name="a", kind="b", verdict=Verdict.PASS, evidence=evidence)
    text = to_json(CheckResult(adapter="a", base=None, verdict="pass", questions={}, probes=(probe,)))
    _strict(text)
    assert to_json(CheckResult.model_validate_json(text.encode())) == text
