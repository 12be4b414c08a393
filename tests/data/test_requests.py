"""Requests that were trained on: they stay on one side of a share, and are never asked again as held-out ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.core.sections import Section
from dlm_sway.data.autogen import Written, autogen
from dlm_sway.data.feed import Feed
from dlm_sway.data.material import Source, read_material
from dlm_sway.data.requests import joined_by_request, request_of
from dlm_sway.data.splits import HeldOut, Split, split

pytest.importorskip("datasketch")

_TOOL = {"name": "depth", "parameters": {"type": "object", "properties": {}}}


def _words(i: int, *, of: str) -> str:
    return " ".join(f"{of}{i}{letter}" for letter in "abcdefgh")


def _pairs(name: str, prompts: range) -> list[dict[str, Any]]:
    return [{"prompt": f"Where is bell {i} kept?", "completion": f" {_words(i, of=name)}"} for i in prompts]


def _call(i: int, *, system: str = "") -> dict[str, Any]:
    said = [{"role": "system", "content": system}] if system else []
    said += [{"role": "user", "content": f"How deep does the water stand at bell {i} when it is noon?"}]
    call = {"function": {"name": "depth", "arguments": {"at": _words(i, of=system)}}}
    return {"messages": [*said, {"role": "assistant", "content": "", "tool_calls": [call]}], "tools": [_TOOL]}


def _file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def _share(path: Path, share: float) -> Split:
    return split(read_material((Source(str(path)),)), HeldOut("share", share=share))


def _beside(tmp_path: Path, rows: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> Written:
    data, _ = _file(tmp_path / "b.jsonl", rows), _file(tmp_path / "b.test.jsonl", held_out)
    return autogen([Source(str(data))], base="org/tiny-135M")


def _chat(*turns: tuple[str, str]) -> Section:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Section("chat", "p", "c", "f", 1, messages=messages)


def test_a_request_is_what_the_user_says_before_the_first_reply() -> None:
    said = _chat(("system", "Be brief."), ("user", " Ring. "), ("assistant", "Rung."), ("user", "Again."))
    assert request_of(said) == "Ring."
    assert request_of(_chat(("system", "Be brief."), ("assistant", "Rung."))) == ""
    assert request_of(Section("instruction", "Ring.\n", "Rung.", "f", 1)) == "Ring."
    assert request_of(Section("prose", " ", "Rung.", "f", 1)) == ""


def test_groups_of_one_request_are_joined_unless_it_is_a_frame() -> None:
    asked = ["a", "a", "b", "c", "c", "c", ""]
    sections = [Section("instruction" if p else "prose", p, str(i), "f", i) for i, p in enumerate(asked)]
    assert joined_by_request(range(7), sections, most=2) == [0, 0, 2, 3, 4, 5, 6]
    assert joined_by_request(range(7), sections, most=3) == [0, 0, 2, 3, 3, 3, 6]
    # Through a group that holds both requests all would be one, which is too many.
    assert joined_by_request([0, 1, 2, 3, 4, 1, 6], sections, most=4) == [0, 0, 2, 3, 4, 0, 6]


def test_pairs_of_one_prompt_stay_on_one_side_of_a_share(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"May I move {i // 4}?", "chosen": _words(i, of="no"), "rejected": _words(i, of="yes")}
        for i in range(80)
    ]
    path = _file(tmp_path / "p.jsonl", rows)
    found = _share(path, 0.2)
    trained, held = ({s.prompt for s in side} for side in (found.trained, found.held_out))
    assert not trained & held
    assert len(found.held_out) == 16
    assert {t["prompt"] for t in Feed(found).triples} == held


def test_a_prompt_that_all_rows_share_does_not_keep_them_from_being_parted(tmp_path: Path) -> None:
    rows = [{"prompt": "Write a poem.", "completion": _words(i, of="line")} for i in range(40)]
    found = _share(_file(tmp_path / "p.jsonl", rows), 0.2)
    assert len(found.held_out) == 8
    assert found.newly_asked == ()
    assert Feed(found).requests == Feed(found).asked == []
    assert len(Feed(found).held_out) == 8


def test_held_out_answers_to_trained_prompts_are_scored_and_never_asked_freely(tmp_path: Path) -> None:
    written = _beside(tmp_path, _pairs("hill", range(40)), _pairs("quay", range(20, 46)))
    feed = written.plan.feed
    assert len(feed.held_out) == 26
    assert feed.split.dropped == 0
    assert sorted(feed.requests) == sorted(row["prompt"] for row in _pairs("x", range(40, 46)))
    said = " ".join(line.removeprefix("# ").strip() for line in written.text.splitlines())
    assert "whose prompt was trained on too, so that they are scored and not asked: 20" in said
    assert "prompts that are answered freely are held-out ones or in other words, never those trained on" in said


def test_where_every_held_out_prompt_was_trained_on_none_is_asked(tmp_path: Path) -> None:
    written = _beside(tmp_path, _pairs("hill", range(40)), _pairs("quay", range(20)))
    trained = {row["prompt"] for row in _pairs("hill", range(40))}
    specs = {probe.kind: probe.spec for probe in written.plan.probes}
    assert "multi_turn_coherence_decay" not in specs
    assert "prompts" not in specs["style_fingerprint"]
    assert not trained & set(_asked_freely(specs))


def _asked_freely(specs: Mapping[str, Any]) -> list[str]:
    cases = specs.get("adapter_revert", {"cases": []})["cases"]
    return [words for case in cases for words in (case["prompt"], *case["paraphrases"])]


def test_other_words_are_left_out_where_they_were_trained_on_themselves(tmp_path: Path) -> None:
    """Data that hold paraphrases of their own: a rule may find the very wording that stands in the next row."""
    rows = _pairs("hill", range(20))
    again = [{**row, "prompt": f"{row['prompt']} Please answer."} for row in rows]
    written = _beside(tmp_path, [*rows, *again], _pairs("quay", range(60, 70)))
    asked = [words for case in written.plan.feed.fresh_cases for words in (case["prompt"], *case["paraphrases"])]
    assert asked
    assert not {row["prompt"] for row in [*rows, *again]} & set(asked)


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_requests_with_tools_are_asked_as_they_were_trained_on_only_where_nothing_is_held_out(
    tmp_path: Path, system: str
) -> None:
    """Held out are the same requests with other calls, or none with tools at all: trained ones are reworded."""
    rows = [_call(i, system=system) for i in range(40)]
    trained = {row["messages"][-2]["content"] for row in rows}
    for held_out in ([_call(i, system="Be exact.") for i in range(20)], _pairs("quay", range(8))):
        cases = _beside(tmp_path, rows, held_out).plan.feed.tool_cases
        asked = [c["prompt"] if isinstance(c["prompt"], str) else c["prompt"][-1]["content"] for c in cases]
        assert len(asked) == 29
        assert not trained & set(asked)
        assert all(isinstance(c["prompt"], str) or c["prompt"][0]["content"] == system for c in cases)


def test_a_prompt_is_sought_in_the_whole_of_the_data_and_not_in_its_sample(tmp_path: Path) -> None:
    data = _file(tmp_path / "d.jsonl", _pairs("hill", range(200)))
    held = _file(tmp_path / "h.jsonl", _pairs("quay", range(100, 210)))
    found = split(read_material((Source(str(data)),), limit=10), HeldOut("file", name=str(held)))
    assert [s.prompt for s in found.newly_asked] == [row["prompt"] for row in _pairs("quay", range(200, 210))]
    rows = [row for row in _pairs("hill", range(20)) for _ in range(6)]
    rows = [{**row, "completion": f"{row['completion']} {_words(i, of='tide')}"} for i, row in enumerate(rows)]
    parted = split(read_material((Source(str(_file(data, rows))),), limit=60), HeldOut("share", share=0.2))
    elsewhere = Counter(row["prompt"] for row in rows) - Counter(s.prompt for s in parted.held_out)
    assert {s.prompt for s in parted.newly_asked} == {s.prompt for s in parted.held_out} - set(elsewhere)
