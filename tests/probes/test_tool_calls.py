from __future__ import annotations

import time

import pytest

from dlm_sway.probes.tool_calls import MALFORMED, Call, agreement, calls_in

RING = Call("ring", {"times": 3})
JSON = '{"name": "ring", "arguments": {"times": 3}}'


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        f"  {JSON}\n",
        f"Certainly! {JSON} Done.",
        f"[{JSON}]",
        f"<tool_call>\n{JSON}\n</tool_call>",
        f"<tool_call>[{JSON}]</tool_call>",
        f"I ring.<tool_call>{JSON}",
        f"```json\n{JSON}\n```",
        f"```\n{JSON}\n```",
        f"Here:\n```json\n[{JSON}]",
        '{"name": "ring", "parameters": {"times": 3}}',
        '{"type": "function", "function": {"name": "ring", "parameters": {"times": 3}}}',
        '{"name": "ring", "arguments": "{\\"times\\": 3}"}',
        f"an array [1, 2] and {{}} before {JSON}",
    ],
)
def test_a_call_is_found_in_every_common_form(text: str) -> None:
    assert calls_in(text) == (RING,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        "{}",
        "[]",
        '{"name": "ring"}',
        '{"times": 3}',
        "```python\nx = {}\n```",
        "a { b [ c",
        "[1, 2]",
    ],
)
def test_a_text_without_a_call_has_none(text: str) -> None:
    assert calls_in(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>ring the bell</tool_call>",
        "<tool_call>",
        '<tool_call>{"name": "ring", "arguments": {"times": </tool_call>',
        '{"name": "ring", "arguments": {"times": 3',
        '```json\n{"name": "ring", "arguments": {\'times\': 3}}\n```',
        '{"name": "ring", "arguments": {"times": NaN}}',
    ],
)
def test_a_call_that_was_tried_and_cannot_be_read_is_malformed(text: str) -> None:
    assert calls_in(text) == (MALFORMED,)


def test_arguments_that_are_no_object_are_unread_and_the_name_is_kept() -> None:
    assert calls_in('{"name": "ring", "arguments": [3]}') == (Call("ring", None),)
    assert calls_in('{"name": "ring", "arguments": "three times"}') == (Call("ring", None),)


def test_several_calls_keep_their_order() -> None:
    other = JSON.replace("ring", "open")
    for text in (f"<tool_call>{JSON}</tool_call><tool_call>{other}</tool_call>", f"[{JSON}, {other}]", JSON + other):
        assert [call.name for call in calls_in(text)] == ["ring", "open"]
    assert [c.name for c in calls_in(f"<tool_call>{JSON}<tool_call>{other}</tool_call>")] == ["ring", "open"]


def test_hostile_text_is_read_in_little_time() -> None:
    began = time.perf_counter()
    for text in ("[" * 100_000, '{"a":' * 50_000, "<tool_call>" * 20_000, "```json\n" * 20_000, "{" * 10**6):
        calls_in(text)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("arguments", "share"),
    [
        ({"where": "the harbour", "times": 3}, 1.0),
        ({"where": " The  Harbour ", "times": 3.0}, 1.0),
        ({"where": "the harbour"}, 0.5),
        ({"where": "the harbour", "times": 4}, 0.5),
        ({"where": "the harbour", "times": 3, "loud": True}, 2 / 3),
        ({}, 0.0),
    ],
)
def test_agreement_is_the_share_of_arguments_that_are_the_same(arguments: dict[str, object], share: float) -> None:
    gold = Call("ring", {"where": "the harbour", "times": 3})
    assert agreement(Call("ring", arguments), gold) == pytest.approx(share)
    assert agreement(Call("open", arguments), gold) == 0.0


def test_agreement_of_calls_without_arguments_and_of_truth_values() -> None:
    assert agreement(Call("ring", {}), Call("ring", {})) == 1.0
    assert agreement(Call("ring", None), Call("ring", {})) == 0.0
    assert agreement(Call("ring", {"x": True}), Call("ring", {"x": 1})) == 0.0
    assert agreement(Call("ring", {"x": [{"y": "A"}]}), Call("ring", {"x": [{"y": "a"}]})) == 1.0
