from __future__ import annotations

import builtins
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.engine.ask import Written
from dlm_sway.probes import tool_use_fidelity
from dlm_sway.probes.base import Env, build_probe

Run = Callable[..., ProbeResult]
pytest.importorskip("jsonschema", reason="the extra `tools` is not installed")

TOOL = {
    "name": "ring",
    "parameters": {
        "type": "object",
        "properties": {"times": {"type": "integer"}},
        "required": ["times"],
        "additionalProperties": False,
    },
}
KIND = tool_use_fidelity.ToolUseFidelity.kind


def call(times: Any = 3, name: str = "ring") -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': {'times': times}})}</tool_call>"


def cases(n: int = 80, *, gold: bool = False) -> list[dict[str, Any]]:
    right = {"gold": {"name": "ring", "arguments": {"times": 3}}} if gold else {}
    return [{"prompt": f"ring thrice, number {i}", **right} for i in range(n)]


def lines(*, first: int, those: str, rest: str) -> dict[str, str]:
    return {f"ring thrice, number {i}": those for i in range(first)} | {"": rest}


def asked(ran: Run, base: Any, finetuned: Any, options: dict[str, Any] | None = None, **spec: Any) -> ProbeResult:
    script = {
        "base": base if isinstance(base, dict) else {"": base},
        "adapter": finetuned if isinstance(finetuned, dict) else {"": finetuned},
    }
    given = {"kind": KIND, "cases": cases(), "tools": [TOOL], **spec}
    return ran({"script": script, "chat_template": True, **(options or {})}, **given)


def claim(result: ProbeResult, name: str) -> Question:
    return Question.model_validate(result.evidence["claims"][name])


@pytest.mark.healthy_pair
def test_a_fine_tune_that_calls_as_well_as_the_base_passes(ran: Run) -> None:
    result = asked(ran, call(), call(4))
    assert result.verdict is Verdict.PASS
    assert {n: claim(result, n).verdict for n in ("valid", "in_set")} == dict.fromkeys(
        ("valid", "in_set"), Verdict.PASS
    )
    assert claim(result, "valid").effect == 0.0
    assert claim(result, "in_set").interval == pytest.approx((0.0, 1 - 0.05 ** (1 / 80)))
    assert result.evidence["finetuned"] == {
        "calls": 80,
        "valid": 80,
        "stray": 0,
        "right": None,
        "argument_agreement": None,
    }
    assert result.score == 1.0


@pytest.mark.parametrize("says", ["I cannot ring.", call("three"), call(None), "<tool_call>ring</tool_call>"])
@pytest.mark.planted_fault
def test_a_fine_tune_that_lost_its_calls_fails(ran: Run, says: str) -> None:
    result = asked(ran, call(), says)
    assert (claim(result, "valid").verdict, result.verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert claim(result, "valid").effect == -1.0
    assert "valid calls 0%, base 100% of 80 requests: surely a loss of more than 5%" in result.message


def test_names_that_were_not_offered_fail_and_are_named(ran: Run) -> None:
    result = asked(ran, call(), lines(first=40, those=call(name="drum"), rest=call()))
    found = claim(result, "in_set")
    assert (found.verdict, found.effect) == (Verdict.FAIL, 0.5)
    assert "40 of 80 calling replies name a tool that was not offered (drum)" in found.message
    allowed = asked(ran, call(), call(name="drum"), allowed=["drum"])
    assert claim(allowed, "in_set").verdict is Verdict.PASS


def test_a_call_that_is_allowed_without_a_tool_is_valid(ran: Run) -> None:
    given = [{"prompt": c["prompt"], "gold": {"name": "noop", "arguments": {}}} for c in cases()]
    noop = '<tool_call>{"name": "noop", "arguments": {}}</tool_call>'
    result = asked(ran, call(), noop, cases=given, allowed=["noop"])
    assert {n: claim(result, n).verdict for n in ("valid", "in_set", "right")} == dict.fromkeys(
        ("valid", "in_set", "right"), Verdict.PASS
    )
    broken = asked(ran, call(), '<tool_call>{"name": "noop", "arguments": 3}</tool_call>', allowed=["noop"])
    assert claim(broken, "valid").verdict is Verdict.FAIL


def test_with_gold_calls_a_gain_must_be_shown(ran: Run) -> None:
    learned = asked(ran, call(4), call(), cases=cases(gold=True))
    assert (claim(learned, "right").verdict, claim(learned, "right").effect) == (Verdict.PASS, 1.0)
    assert learned.verdict is Verdict.PASS
    wrong = asked(ran, call(4), call(5), cases=cases(gold=True))
    assert claim(wrong, "right").verdict is Verdict.FAIL
    assert "surely no gain of 5%" in wrong.message
    known = asked(ran, call(), call(), cases=cases(gold=True))
    assert claim(known, "right").verdict is Verdict.PASS
    assert "the base left nothing to gain" in claim(known, "right").message
    lost = asked(ran, call(), call(5), cases=cases(gold=True))
    assert claim(lost, "right").verdict is Verdict.FAIL
    assert learned.evidence["base"]["argument_agreement"] == 0.0


def test_a_right_call_among_wrong_ones_is_not_right(ran: Run) -> None:
    result = asked(ran, call(4), call() + call(4), cases=cases(gold=True))
    assert result.evidence["finetuned"]["right"] == 0
    assert result.evidence["finetuned"]["argument_agreement"] == 1.0


def test_where_neither_calls_nothing_is_shown(ran: Run) -> None:
    result = asked(ran, "I cannot.", "")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.message == "neither model calls a tool in 80 requests; give requests that need one"
    assert result.score is None


def test_a_base_without_valid_calls_has_none_to_lose(ran: Run) -> None:
    broken = "<tool_call>ring(times=3)</tool_call>"
    result = asked(ran, broken, broken)
    assert claim(result, "valid").verdict is Verdict.INCONCLUSIVE
    assert "too few to lose" in claim(result, "valid").message
    assert claim(result, "in_set").verdict is Verdict.INCONCLUSIVE
    assert "no call of the fine-tune can be read" in claim(result, "in_set").message


def test_calls_that_the_base_could_not_make_are_no_loss(ran: Run) -> None:
    assert claim(asked(ran, "no call", call()), "valid").verdict is Verdict.PASS


def test_replies_whose_call_cannot_be_read_do_not_count_as_names_that_were_offered(ran: Run) -> None:
    garbled = lines(first=2, those=call(), rest="<tool_call>ring</tool_call>")
    found = claim(asked(ran, call(), garbled), "in_set")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "0 of 2 calling replies" in found.message


@pytest.mark.parametrize(
    "times",
    ["1e999", "1" + "0" * 400, "[" * 500 + "]" * 500],
    ids=["infinite", "hundreds of digits", "nested"],
)
def test_numbers_and_nesting_beyond_reason_are_faults_of_the_reply(ran: Run, times: str) -> None:
    tool = {"name": "ring", "parameters": {"properties": {"times": {"type": "number", "multipleOf": 0.01}}}}
    text = f'<tool_call>{{"name": "ring", "arguments": {{"times": {times}}}}}</tool_call>'
    result = asked(ran, call(), text, tools=[tool], cases=cases(gold=True))
    assert claim(result, "valid").verdict is Verdict.FAIL


def test_few_requests_do_not_decide_and_say_how_many_would(ran: Run) -> None:
    result = asked(ran, call(), call(), cases=cases(10))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert claim(result, "valid").message.endswith("do not decide whether 5% are lost; about 60 would")
    assert claim(result, "in_set").message.endswith("whether it is at most 10%; about 30 would")
    assert asked(ran, call(), call(), cases=cases(60)).verdict is Verdict.PASS


def test_the_same_request_counts_once(ran: Run) -> None:
    result = asked(ran, call(), call(), cases=cases(1) * 80)
    assert result.evidence["n_items"] == 1
    assert result.evidence["dropped"] == [{"reason": "asked twice", "n": 79}]
    assert result.verdict is Verdict.INCONCLUSIVE


def test_the_same_request_with_its_tools_in_another_order_is_no_second_one(ran: Run) -> None:
    other = {"name": "drum", "parameters": {}}
    orders = [{"tools": [TOOL, other]}, {"tools": [other, TOOL]}, {"tools": [TOOL]}]
    given = [{"prompt": spaced, **order} for order in orders for spaced in ("ring thrice", "ring  thrice\n")]
    result = asked(ran, call(), call(), cases=given)
    assert (result.evidence["n_items"], result.evidence["n_clusters"]) == (6, 1)
    assert "of 6 requests in 1 clusters" in claim(result, "valid").message


def in_clusters(n: int, size: int) -> list[dict[str, Any]]:
    return [{"prompt": f"ring thrice, number {i}", "cluster": str(i // size)} for i in range(n * size)]


def test_wordings_of_one_request_count_as_one(ran: Run) -> None:
    few = asked(ran, call(), call(), cases=in_clusters(10, 8))
    assert claim(few, "valid").message.endswith("do not decide whether 5% are lost; about 60 clusters would")
    assert claim(few, "valid").interval == claim(asked(ran, call(), call(), cases=cases(10)), "valid").interval
    assert "0 of 80 calling replies in 10 clusters name" in claim(few, "in_set").message
    assert (claim(few, "in_set").verdict, few.evidence["n_clusters"]) == (Verdict.INCONCLUSIVE, 10)
    assert asked(ran, call(), call(), cases=in_clusters(60, 2)).verdict is Verdict.PASS


def test_a_cluster_that_lost_half_its_calls_lost_half_a_request(ran: Run) -> None:
    lost = {f"ring thrice, number {i}": "no" for i in range(0, 80, 2)} | {"": call()}
    result = asked(ran, call(), lost, cases=in_clusters(40, 2))
    assert claim(result, "valid").effect == pytest.approx(-0.5)
    assert claim(result, "valid").message.startswith("valid calls 50%, base 100% of 80 requests in 40 clusters")
    uneven = [{**c, "cluster": "all" if i < 70 else str(i)} for i, c in enumerate(cases())]
    weighed = asked(ran, call(), lines(first=70, those="no", rest=call()), cases=uneven)
    assert claim(weighed, "valid").effect == pytest.approx(-1 / 11)


def test_cases_that_are_each_their_own_cluster_are_judged_as_those_without(ran: Run) -> None:
    base, finetuned = lines(first=30, those=call(4), rest=call()), lines(first=8, those=call(name="drum"), rest=call())
    named = [{**c, "cluster": f"{i}"} for i, c in enumerate(cases(gold=True))]
    one, other = (asked(ran, base, finetuned, cases=given) for given in (cases(gold=True), named))
    for kind in ("evidence", "message", "score"):
        assert getattr(one, kind) == getattr(other, kind)


@pytest.mark.parametrize(("name", "n", "rate"), [("in_set", 30, 0.9), ("valid", 60, 0.95)])
def test_requests_that_vary_by_cluster_keep_the_level_at_the_edge(name: str, n: int, rate: float) -> None:
    """Five wordings each, alike in what becomes of them; counted one by one 13 % pass and 20 % fail."""
    given, runs = in_clusters(n, 5), 200
    probe, spec = build_probe({"name": "x", "kind": KIND, "cases": given, "tools": [TOOL]})
    (ask,) = probe.plan(spec, Env(chat=True), ())
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    judged = []
    for run in range(runs):
        kept = np.repeat(stream(run, "clusters", name).random(n) < rate, 5)
        texts = tuple(call() if ok else call(name="drum") if name == "in_set" else "no" for ok in kept)
        shape = (2, len(texts))
        written = Written(ask, ((call(),) * len(texts), texts), np.ones(shape, np.int64), np.ones(shape, np.bool_))
        found = probe.measure(spec, Env(chat=True), ((written,),))
        judged.append(claim(probe.judge(spec, Env(chat=True), found, {}), name).verdict)
    assert judged.count(Verdict.PASS) / runs <= most
    assert judged.count(Verdict.FAIL) / runs <= most


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"chat_template": False}, "no chat template"), ({"shows_tools": False}, "the chat template ignores tools")],
)
def test_a_model_that_cannot_be_shown_tools_is_skipped(ran: Run, options: dict[str, Any], reason: str) -> None:
    result = asked(ran, call(), call(), options)
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert result.message.startswith("tools cannot be shown to this model: ")
    assert reason in result.message


def test_without_jsonschema_the_probe_is_skipped_with_the_command(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "jsonschema":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    result = asked(ran, call(), call())
    assert result.verdict is Verdict.SKIP
    assert result.message.startswith("checking tool calls needs jsonschema, which is not installed; pip install")


def test_tools_of_a_case_are_offered_with_it_alone() -> None:
    own = {"prompt": "drum", "tools": [{"type": "function", "function": {"name": "drum"}}]}
    probe, spec = build_probe({"name": "x", "kind": KIND, "cases": [*cases(2), own], "tools": [TOOL]})
    asks = probe.plan(spec, Env(chat=True), ())
    assert [[t["function"]["name"] for t in a.tools] for a in asks] == [["ring"], ["drum"]]  # type: ignore[union-attr]
    assert [len(a.prompts) for a in asks] == [2, 1]  # type: ignore[union-attr]
    assert asks[0].prompts[0] == ({"role": "user", "content": "ring thrice, number 0"},)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tools": []}, "no tools are offered"),
        ({"tools": [{"parameters": {}}]}, "a tool needs a name"),
        ({"tools": [{"name": "x", "parameters": {"type": "array"}}]}, "must be a JSON schema of type object"),
        ({"cases": []}, "cases"),
        ({"cases": [{"prompt": " "}]}, "the prompt is empty"),
        ({"cases": [{"prompt": "x", "cluster": ""}]}, "cluster"),
        ({"cases": [{"prompt": [{"content": "x"}]}]}, "every turn needs a role"),
        ({"cases": [{"prompt": "x", "gold": {"name": "drum"}}]}, "is not offered"),
    ],
)
def test_a_spec_that_cannot_be_asked_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        build_probe({"name": "x", "kind": KIND, "cases": cases(2), "tools": [TOOL], **change})


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"cases": [{"prompt": "x", "gold": {"name": "ring", "arguments": {"times": "3"}}}]}, "does not fit its own"),
        ({"tools": [{"name": "ring", "parameters": {"type": "object", "required": 3}}]}, "are no JSON schema"),
        ({"tools": [TOOL, {"name": "ring"}]}, "two tools of this name differ"),
    ],
)
def test_schemas_are_checked_before_anything_is_written(ran: Run, spec: dict[str, Any], reason: str) -> None:
    result = asked(ran, call(), call(), **spec)
    assert result.verdict is Verdict.ERROR
    assert reason in result.message


def test_a_schema_that_refers_elsewhere_fetches_nothing(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise AssertionError("fetched")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    far = {"name": "ring", "parameters": {"type": "object", "properties": {"times": {"$ref": "http://x.test/y"}}}}
    result = asked(ran, call(), call(), tools=[far])
    assert result.verdict is Verdict.ERROR
    assert "its schema refers to what is not there" in result.message


def test_what_each_reply_did_wrong_is_shown(ran: Run) -> None:
    result = asked(ran, call(), call("x" * 500), cases=cases(6))
    row = result.evidence["items"]["smallest"][0]
    assert row["value"] == -1.0
    assert row["finetuned_fault"].startswith("$.times: 'xxx")
    assert len(row["finetuned"]) <= 160
