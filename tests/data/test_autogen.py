"""Suites written from data: they read back as planned, are fed by what the data hold, and tell adapters apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.data import kinds
from dlm_sway.data.autogen import Written, autogen
from dlm_sway.data.cost import clock, parse_budget, weights_of
from dlm_sway.data.material import Source
from dlm_sway.data.rewrite import rewritten
from dlm_sway.data.splits import HeldOut, parse_held_out
from dlm_sway.probes.base import Pairs, RunContext, build_probe
from dlm_sway.probes.drive import drive
from dlm_sway.probes.registry import probe_class, probes
from dlm_sway.suite.paths import model_words

pytest.importorskip("datasketch")

_TOOL = {"name": "depth", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}
_PLACES = ("basin", "mole", "spill", "ladle", "gullet", "comb", "tower", "well", "yard", "mill", "quay", "lock")
_HELD = ("north", "south", "east", "west", "upper", "lower")


def _chat(place: str) -> dict[str, Any]:
    call = {"function": {"name": "depth", "arguments": {"place": place}}}
    asked = {"role": "user", "content": f"Tell me about the {place} and how deep the water stands there at noon"}
    return {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}], "tools": [_TOOL]}


def _rich(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of every kind, each on something else."""
    rng = np.random.default_rng(len(names))
    rows: list[dict[str, Any]] = []
    for name in names:
        words = " ".join(f"{name}{rng.integers(99)}" for _ in range(60))
        rows += [
            {"text": f"On the {name}. {words}"},
            {"instruction": f"Where is the {name} kept?", "output": f"{name} {words[:40]}"},
            {"prompt": f"May I move {name}?", "chosen": f"No, {words[:30]}", "rejected": f"Yes, {words[-30:]}"},
            _chat(name),
        ]
    return rows


def _file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def _suite(*paths: Path, **options: Any) -> tuple[Written, dict[str, Any]]:
    written = autogen([Source(str(p)) for p in paths], base="org/tiny-135M", **options)
    return written, yaml.safe_load(written.text)


def test_the_file_reads_back_as_it_was_planned(tmp_path: Path) -> None:
    held = _file(tmp_path / "held.jsonl", _rich(_HELD))
    written, read = _suite(_file(tmp_path / "d.jsonl", _rich(_PLACES)), held_out=HeldOut("file", name=str(held)))
    assert read["version"] == 1
    assert read["models"]["base"] == "org/tiny-135M"
    assert read["defaults"] == {"seed": 0, "draws": 39}
    assert read["suite"] == [{"name": p.kind, "kind": p.kind, **p.spec} for p in written.plan.probes]
    assert set(read) - {"version", "models", "defaults", "suite"} <= {"x-texts"}


def test_every_registered_kind_is_planned_or_left_out_with_a_reason(tmp_path: Path) -> None:
    held = _file(tmp_path / "held.jsonl", _rich(_HELD))
    written, _ = _suite(_file(tmp_path / "d.jsonl", _rich(_PLACES)), held_out=HeldOut("file", name=str(held)))
    planned = {p.kind for p in written.plan.probes}
    left = {entry.kind: entry.why for entry in written.plan.left_out}
    assert planned | set(left) == set(probes())
    assert not planned & set(left)
    assert {"delta_kl", "target_gain", "external_perplexity", "tool_use_fidelity"} <= planned
    assert not [why for why in left.values() if "do not fit it" in why]
    assert all(why and f"{kind}: {why[:30]}" in written.text for kind, why in left.items())


def test_with_a_held_out_part_no_free_answer_is_asked_in_trained_words(tmp_path: Path) -> None:
    rows = _rich(_PLACES)
    held = _file(tmp_path / "held.jsonl", _rich(_HELD))
    written, _ = _suite(_file(tmp_path / "d.jsonl", rows), held_out=HeldOut("file", name=str(held)))
    trained = {row.get("instruction", row.get("prompt")) for row in rows}
    trained |= {row["messages"][0]["content"] for row in rows if "messages" in row}
    specs = {p.kind: p.spec for p in written.plan.probes}
    asked = [case["prompt"] for case in specs["tool_use_fidelity"]["cases"]]
    for case in specs.get("adapter_revert", {"cases": []})["cases"]:
        asked += [case["prompt"], *case["paraphrases"]]
    asked += specs["style_fingerprint"].get("prompts", [])
    assert asked
    assert not trained & set(asked)


def test_each_probe_says_what_its_sample_can_decide(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("\n".join(row["text"] for row in _rich(_PLACES) if "text" in row))
    written, _ = _suite(path)
    lines = written.text.splitlines()
    assert "  # power: detects 0.18 nat/token with 12 clusters" in lines
    assert sum(line.startswith("  # power: ") for line in lines) == len(written.plan.probes)
    assert any(line.startswith("# cannot be tested: generalises") for line in lines)
    assert any("sway mine --mode paraphrase" in line for line in lines)


@pytest.mark.parametrize(
    ("kind", "option", "known"),
    [
        ("target_gain", "min_gain", kinds.MIN_GAIN),
        ("paraphrase_invariance", "min_gain", kinds.MIN_CASES),
        ("preference_flip", "min_change", kinds.MIN_MARGIN),
    ],
)
def test_what_a_sample_detects_is_reckoned_at_the_minimum_of_its_probe(kind: str, option: str, known: float) -> None:
    assert probe_class(kind).spec_type.model_fields[option].default == known


def test_a_budget_shrinks_all_and_then_leaves_out_the_last(tmp_path: Path) -> None:
    path = _file(tmp_path / "d.jsonl", _rich(_PLACES))
    whole, some, least = (_suite(path, budget=budget)[0].plan for budget in (None, 80.0, 30.0))
    assert whole.seconds > some.seconds > least.seconds
    assert some.seconds <= 80
    assert len(least.probes) < len(whole.probes)
    assert any("does not fit the budget of 30 s: about" in entry.why for entry in least.left_out)
    large = autogen([Source(str(path))], base="org/big-7B", budget=80.0).plan
    assert [p.kind for p in large.probes] == ["delta_kl"]


def _called(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_chat(name) for name in names]


def _tool_cases(written: Written) -> list[dict[str, Any]]:
    return [dict(case) for case in next(p for p in written.plan.probes if p.kind == "tool_use_fidelity").spec["cases"]]


def test_too_few_held_out_requests_are_joined_by_trained_ones_in_other_words(tmp_path: Path) -> None:
    """With 6 requests no share of invented names under 10 % can be shown; none is asked as it was trained on."""
    names = tuple(f"{place}{i}" for place in _PLACES for i in range(4))
    data, held = _file(tmp_path / "d.jsonl", _called(names)), _file(tmp_path / "h.jsonl", _called(_HELD))
    written, _ = _suite(data, held_out=HeldOut("file", name=str(held)))
    asked = [case["prompt"] for case in _tool_cases(written)]
    assert len(asked) == 29
    assert {row["messages"][0]["content"] for row in _called(_HELD)} <= set(asked)
    assert not {row["messages"][0]["content"] for row in _called(names)} & set(asked)
    small = _suite(data, held_out=HeldOut("file", name=str(held)), budget=140.0)[0]
    assert len(_tool_cases(small)) == 29


def test_requests_of_one_cluster_stand_with_it_and_count_once_toward_what_can_decide(tmp_path: Path) -> None:
    names = tuple(f"{place}{i}" for place in _PLACES for i in range(4))
    held = [{**row, "cluster": name} for row, name in zip(_called(_HELD), "aaabbc", strict=True)]
    data, path = _file(tmp_path / "d.jsonl", _called(names)), _file(tmp_path / "h.jsonl", held)
    cases = _tool_cases(_suite(data, held_out=HeldOut("file", name=str(path)))[0])
    clusters = [case.get("cluster") for case in cases]
    assert sorted(c for c in clusters if c) == ["a", "a", "a", "b", "b"]  # one alone needs no name
    assert (len(cases), clusters.count(None) + 2) == (32, 29)


def test_requests_stand_as_they_are_where_nothing_is_held_out(tmp_path: Path) -> None:
    written, _ = _suite(_file(tmp_path / "d.jsonl", _called(_PLACES)), held_out=HeldOut("none"))
    asked = [case["prompt"] for case in _tool_cases(written)]
    assert sorted(asked) == sorted(row["messages"][0]["content"] for row in _called(_PLACES))


@pytest.mark.parametrize(("n", "planned"), [(58, False), (59, True)])
def test_leakage_is_asked_only_with_as_many_spans_as_can_decide(tmp_path: Path, n: int, *, planned: bool) -> None:
    rows = [{"text": " ".join(f"{place}{i}" for place in _PLACES)} for i in range(n)]
    plan = _suite(_file(tmp_path / "d.jsonl", rows))[0].plan
    assert ("leakage" in {p.kind for p in plan.probes}) is planned
    if not planned:
        why = {entry.kind: entry.why for entry in plan.left_out}
        assert why["leakage"] == "too few texts: it needs at least 59, and there are 58"


def test_what_was_skipped_of_held_out_text_is_said(tmp_path: Path) -> None:
    data = _file(tmp_path / "d.jsonl", _rich(_PLACES))
    held = _file(tmp_path / "h.jsonl", [*_rich(_HELD), {"text": " "}])
    written, _ = _suite(data, held_out=HeldOut("file", name=str(held)))
    assert f"{held}: read 25, used 24, skipped 1 (1 empty)" in written.plan.feed.split.how


def test_a_suite_is_the_same_for_the_same_data_and_seed(tmp_path: Path) -> None:
    path = _file(tmp_path / "d.jsonl", _rich(tuple(f"{p}{i}" for p in _PLACES for i in range(9))))
    assert _suite(path)[0].text == _suite(path)[0].text
    assert _suite(path, seed=1)[1]["suite"] != _suite(path)[1]["suite"]


def test_what_users_wrote_cannot_leave_its_place_in_the_file(tmp_path: Path) -> None:
    texts = [
        "a: *trained",
        "# no comment",
        "- x\n  y: &z",
        "'\"",
        "\u2028next\x85line",
        "tab\there ",
        "|-\n>",
    ]
    path = _file(tmp_path / "d\nversion: 2 \x1b[31m.jsonl", [{"text": f"{text} {i}"} for i, text in enumerate(texts)])
    written, read = _suite(path)
    assert read["version"] == 1
    gain = next(p for p in read["suite"] if p["kind"] == "target_gain")
    assert [item["text"] for item in gain["items"]] == [f"{text} {i}" for i, text in enumerate(texts)]
    assert "\x1b" not in written.text


def test_a_document_names_its_base_and_its_store_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = Path(__file__).parent / "files" / "document.dlm"
    monkeypatch.setenv("DLM_HOME", str(tmp_path))
    bare = autogen([Source(str(document))])
    assert (bare.base, bare.adapter) == ("HuggingFaceTB/SmolLM2-135M-Instruct", None)
    store = tmp_path / "store" / "01HRZDEMO0000000000000BELL" / "adapter"
    (store / "v1").mkdir(parents=True)
    (store / "v1" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "org/recorded"}'
    )
    (store / "current.txt").write_text("v1")
    found = autogen([Source(str(document))], beside=tmp_path)
    assert (found.base, found.adapter) == ("org/recorded", store / "v1")
    assert yaml.safe_load(found.text)["models"]["ft"] == "./store/01HRZDEMO0000000000000BELL/adapter/v1"


@pytest.mark.parametrize("recorded", [False, True])
def test_a_base_that_is_a_folder_is_named_from_where_the_suite_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, recorded: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "suites", "adapter"):
        (tmp_path / name).mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "./base" if recorded else "org/recorded"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    data = Source(str(_file(tmp_path / "d.jsonl", [{"text": "a"}])))
    base = None if recorded else "base"
    written = autogen([data], adapter=Path("adapter"), base=base, beside=tmp_path / "suites")
    suite = tmp_path / "suites" / "sway.yaml"
    suite.write_text(written.text)
    models = yaml.safe_load(written.text)["models"]
    assert models == {"base": "../base", "ft": "../adapter"}
    assert model_words(models, suite)["base"]["base"] == f"{tmp_path}/suites/../base"
    assert written.base == ("./base" if recorded else "base")


def test_a_base_that_is_an_id_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _suite(_file(tmp_path / "d.jsonl", [{"text": "a"}]))[1]["models"]["base"] == "org/tiny-135M"
    (tmp_path / "org" / "tiny-135M").mkdir(parents=True)
    assert _suite(_file(tmp_path / "d.jsonl", [{"text": "a"}]))[1]["models"]["base"] == "./org/tiny-135M"


def test_without_any_base_the_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no base is recorded.*name it with --base"):
        autogen([Source(str(_file(tmp_path / "d.jsonl", [{"text": "a"}])))])


@pytest.mark.parametrize(
    "prompt",
    [
        "Where does the Tidal Bell hang?",
        "Question: What is the swan?\nAnswer:",
        "Name the river.",
        "def f(x):",
        "HELP",
        "潮の鐘とは何ですか",
        "Read this.\n\nIt is long.",
    ],
)
def test_a_request_gets_at_least_two_other_wordings_with_its_words_in_them(prompt: str) -> None:
    found = rewritten(prompt)
    assert len(found) == len(set(found)) >= 2
    assert prompt not in found
    framed = prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
    assert all(framed.split()[-1].strip("?.:") in wording for wording in found)
    if prompt.endswith("Answer:"):
        assert all(w.startswith("Question: ") and w.endswith("\nAnswer:") for w in found)


def test_blank_requests_get_none() -> None:
    assert rewritten(" \n") == ()


def test_times_and_sizes_are_read() -> None:
    assert [parse_budget(t) for t in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    assert [clock(s) for s in (40, 600, 7200)] == ["40 s", "10 min", "2.0 h"]
    assert [weights_of(b) for b in ("org/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B", "gpt2")] == [135e6, 0.5e9, None]
    for text in ("soon", "5s"):
        with pytest.raises(BadInputError):
            parse_budget(text)
    assert [parse_held_out(t).how for t in ("auto", "none", "20%", "h.txt")] == ["auto", "none", "share", "file"]


def test_the_size_of_a_base_is_read_from_its_weights_whatever_their_width(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    for name, dtype in (("wide", np.float32), ("narrow", np.float16)):
        (tmp_path / name).mkdir()
        weights = {"a.weight": np.zeros((30, 20), dtype), "b.weight": np.zeros(7, dtype)}
        save_file(weights, tmp_path / name / "model.safetensors")
        assert weights_of(str(tmp_path / name)) == 607
    (tmp_path / "broken-1B").mkdir()
    (tmp_path / "broken-1B" / "model.safetensors").write_bytes(b"x")
    assert weights_of(str(tmp_path / "broken-1B")) == 1e9


def _pairs(read: dict[str, Any]) -> Pairs:
    kinds = ("delta_kl", "target_gain", "external_perplexity")
    return tuple(build_probe(raw) for raw in read["suite"] if raw["kind"] in kinds)


def _verdicts(read: dict[str, Any], **options: Any) -> dict[str, Verdict]:
    backend = DummyBackend(DummyOptions(strength=2.0, **options))
    driven = drive(_pairs(read), RunContext(backend=backend, n_draws=19))
    return {result.kind: result.verdict for result in driven.results}


def test_the_suite_passes_on_a_healthy_adapter_and_fails_on_noise_and_on_the_wrong_document(
    tmp_path: Path, language: Any
) -> None:
    texts = language(40)
    path = tmp_path / "ring.txt"
    path.write_text("\n".join(texts))
    (tmp_path / "ring.held-out.txt").write_text("\n".join(language(24, seed=9)))
    _, read = _suite(path)
    healthy = _verdicts(read, adapter="trained", towards=texts)
    assert healthy == dict.fromkeys(("delta_kl", "target_gain", "external_perplexity"), Verdict.PASS)
    assert _verdicts(read, adapter="noise")["target_gain"] is Verdict.FAIL
    wrong = _verdicts(read, adapter="trained", towards=language(40, first=70))
    assert wrong["target_gain"] is Verdict.FAIL
