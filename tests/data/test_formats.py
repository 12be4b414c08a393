"""Each format, as files of the field hold it: what becomes of every record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section, content_id
from dlm_sway.data.choose import n_clusters, text_items
from dlm_sway.data.dlm import read_header
from dlm_sway.data.dlm_store import adapter_of
from dlm_sway.data.readers import items_of, read_items, read_sections
from dlm_sway.data.reading import Tally
from dlm_sway.data.registry import reader_for, readers
from dlm_sway.suite.fields import in_file

_FILES = Path(__file__).parent / "files"


def _read(name: str | Path) -> tuple[list[Section], str]:
    tally = Tally()
    return list(read_sections(_FILES / name, tally)), tally.summary


def _pairs(sections: list[Section]) -> list[tuple[str, str, str]]:
    return [(s.kind, s.prompt, s.completion) for s in sections]


def _rows(tmp_path: Path, *rows: Any) -> tuple[list[Section], Tally]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    tally = Tally()
    return list(read_sections(path, tally)), tally


def test_built_in_readers_register_as_plugins_do() -> None:
    assert {"dataset", "dlm", "json", "jsonl", "markdown", "parquet", "text"} <= set(readers())


def test_a_reader_is_found_by_name_and_text_reads_the_rest() -> None:
    found = {name: reader_for(name).kind for name in ("a.JSONL", "a.md", "a.dlm", "a.pq", "a.json", "a", "/x/org/name")}
    assert list(found.values()) == ["jsonl", "markdown", "dlm", "parquet", "json", "text", "text"]
    assert reader_for("org/name").kind == reader_for("hf:org/name.v2[test]").kind == "dataset"


def test_prompts_with_completions_keep_their_cluster() -> None:
    sections, summary = _read("prompt-completion.jsonl")
    assert [(s.kind, s.line, s.cluster) for s in sections] == [
        ("instruction", 1, "lamp"), ("instruction", 2, "lamp"), ("instruction", 4, None),
    ]  # fmt: skip
    assert summary == "read 3, used 3"


def test_instructions_join_their_input_and_count_an_empty_output() -> None:
    sections, summary = _read("alpaca.json")
    assert _pairs(sections) == [
        ("instruction", "Name the river that turns the mill.", "The Sarn."),
        ("instruction", "Translate into Old Corrin.\n\nThe tide is late.", "Wethe sil an tarre."),
    ]
    assert [s.line for s in sections] == [2, 7]
    assert summary == "read 3, used 2, skipped 1 (1 empty)"


def test_conversations_keep_every_turn_and_count_what_taught_nothing() -> None:
    sections, summary = _read("messages.jsonl")
    assert _pairs(sections) == [
        ("chat", "You are the harbour desk.\n\nWhen is high water?", "At ten past four."),
        ("chat", "And low water?", "Half past ten."),
        ("chat", "Read this.", "I did."),
    ]
    assert len(sections[1].messages) == 4
    assert summary == (
        "read 5, used 3, skipped 2 (1 without assistant turn, 1 with content that is no text)"
    )  # fmt: skip


def test_each_reply_of_a_conversation_is_scored_and_they_are_one_cluster() -> None:
    first, second = items_of(_read("messages.jsonl")[0][1])
    assert (first.prompt, first.completion) == ("And low water?", "Half past ten.")
    assert second.prompt == "User: And low water?\nAssistant: Half past ten.\nUser: Why so late?"
    assert second.completion == "It is a neap."
    assert first.cluster == second.cluster


def test_tool_calls_have_a_name_and_arguments_whatever_wrote_them() -> None:
    sections, summary = _read("tools.jsonl")
    assert [s.kind for s in sections] == ["tool", "tool"]
    assert sections[0].messages[1]["tool_calls"] == ({"name": "depth", "arguments": {"place": "basin", "hour": 12}},)
    assert sections[1].messages[1]["tool_calls"] == ({"name": "ring", "arguments": {}},)
    assert sections[1].tools[0]["name"] == "ring"
    assert json.loads(sections[0].completion) == {"name": "depth", "arguments": {"place": "basin", "hour": 12}}
    assert summary == "read 2, used 2"


@pytest.mark.parametrize("mask", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_a_turn_that_was_left_out_of_the_loss_is_no_reply(tmp_path: Path, mask: dict[str, Any]) -> None:
    said = [("user", "one"), ("assistant", "unlearned"), ("user", "two"), ("assistant", "learned")]
    turns = [{"role": role, "content": text, **(mask if text == "unlearned" else {})} for role, text in said]
    (section,), _ = _rows(tmp_path, {"messages": turns})
    assert [item.completion for item in items_of(section)] == [section.completion] == ["learned"]
    assert "unlearned" in section.prompt
    assert len(section.messages) == 4
    _, tally = _rows(tmp_path, {"text": "a"}, {"messages": [turns[0], turns[1]]})
    assert tally.skipped == {"without assistant turn": 1}


def test_a_system_prompt_and_history_beside_a_record_are_part_of_it(tmp_path: Path) -> None:
    alpaca = {"instruction": "two", "input": "", "output": "b", "system": "S", "history": [["one", "a"]]}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [alpaca, {"messages": turns, "system": "S"}, {"prompt": "q", "chosen": "a", "rejected": "b", "system": "S"}]
    sections, _ = _rows(tmp_path, *rows, alpaca | {"system": "", "history": []})
    assert _pairs(sections) == [
        ("chat", "S\n\none", "a"), ("chat", "S\n\nq", "a"), ("preference", "S\n\nq", "a"), ("instruction", "two", "b"),
    ]  # fmt: skip
    assert [item.completion for item in items_of(sections[0])] == ["a", "b"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_that_is_not_scored_is_counted(tmp_path: Path, key: str) -> None:
    asked = {"role": "user", "content": "q"}
    thought = {"role": "assistant", "content": "a", key: "hm"}
    rows = [
        {"messages": [asked, thought, asked, thought | {key: " "}, asked, thought | {"weight": 0}]},
        {"conversations": [asked, {"from": "function_call", "value": '{"name": "f"}', key: "hm"}]},
        {"prompt": "q", "chosen": [thought], "rejected": [thought | {"content": "b"}]},
        {"messages": [asked | {key: "hm"}, thought | {key: None}]},
    ]
    sections, tally = _rows(tmp_path, *rows)
    assert [s.n_reasoned for s in sections] == [1, 1, 2, 0]
    assert tally.summary.startswith("read 4, used 4; the reasoning of 4 replies is not scored, their words are: ")
    assert [key in m for m in sections[0].messages] == [False, True, False, False, False, True]
    assert [item.completion for item in items_of(sections[0])] == ["a", "a"]
    assert "hm" not in items_of(sections[0])[1].prompt


def test_a_file_with_reasoning_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    path = tmp_path / "thoughts.jsonl"
    path.write_text(json.dumps({"messages": turns}))
    assert [item.completion for item in (*read_items(path), *read_items(path))] == ["a", "a"]
    assert [record.getMessage()[: len(str(path)) + 28] for record in caplog.records] == [
        f"{path}: the reasoning of 1 replies"
    ]


def test_conversations_that_differ_in_reasoning_are_two(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "thinking": "hm"}]
    sections, _ = _rows(tmp_path, {"messages": turns}, {"messages": [turns[0], turns[1] | {"thinking": "so"}]})
    assert len({section.id for section in sections}) == 2


def test_functions_are_the_tools_of_older_data(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    (section,), _ = _rows(
        tmp_path, {"messages": [{"role": "user", "content": "q"}, call], "functions": [{"name": "f"}]}
    )
    assert (section.kind, section.tools) == ("tool", ({"name": "f"},))


def test_sharegpt_is_read_out_of_an_object_over_many_lines() -> None:
    sections, _ = _read("sharegpt.json")
    assert [(s.kind, s.completion) for s in sections[:2]] == [
        ("chat", "The tarred one."),
        ("chat", "A bowline, and be not caught."),
    ]
    assert sections[1].prompt == "Answer in verse.\n\nWhich knot?"
    assert sections[2].kind == "tool"
    assert sections[2].messages[1]["tool_calls"][0]["arguments"] == {"place": "spill"}


def test_preferences_are_strings_or_messages() -> None:
    sections, summary = _read("preference.jsonl")
    assert [(s.prompt, s.completion, s.rejected) for s in sections] == [
        ("How do I greet a bellward?", "Say: water to your ladle.", "Say hello."),
        ("May I touch the comb?", "Never.", "Sure."),
        ("May I wind it?", "Ask the warden.", "Yes."),
    ]
    assert {s.kind for s in sections} == {"preference"}
    assert summary == "read 4, used 3, skipped 1 (1 with equal replies)"


_TIDE = [{"from": "human", "value": "What is tide?"}]
_GPT = {"chosen": {"from": "gpt", "value": "Water."}, "rejected": {"from": "gpt", "value": "Soap."}}
_WORDS = {"chosen": "Water.", "rejected": "Soap."}
_EARLIER = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
_OPENAI = {
    "input": {"messages": [{"role": "user", "content": "What is tide?"}], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [{"role": "assistant", "content": "Water."}],
    "non_preferred_output": [{"role": "assistant", "content": "Soap."}],
}


@pytest.mark.parametrize("layout", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"conversations": _TIDE, **_GPT}, "What is tide?"),
        ({"conversations": _TIDE, **_WORDS}, "What is tide?"),
        ({"conversations": _TIDE, **{key: [turn] for key, turn in _GPT.items()}}, "What is tide?"),
        ({"conversations": _TIDE, "system": "Be brief.", **_GPT}, "Be brief.\n\nWhat is tide?"),
        ({"conversations": [*_EARLIER, *_TIDE], **_GPT}, "User: Hi\nAssistant: Hello\nUser: What is tide?"),
        ({"messages": _TIDE, **_GPT}, "What is tide?"),
        ({"prompt": "What is tide?", **_GPT}, "What is tide?"),
        ({"prompt": "What is tide?", "messages": [*_EARLIER], **_WORDS}, "What is tide?"),
        ({"instruction": "What is tide?", "input": "", **_WORDS}, "What is tide?"),
        ({"instruction": "Explain.", "input": "tide", "system": "S", **_WORDS}, "S\n\nExplain.\n\ntide"),
        (_OPENAI, "What is tide?"),
    ],
)
def test_a_pair_answers_what_stands_beside_it(tmp_path: Path, row: dict[str, Any], prompt: str, layout: str) -> None:
    path = tmp_path / f"pairs{layout}"
    path.write_text(json.dumps(row, indent=2 if layout == ".json" else None))
    (section,) = read_sections(path)
    assert (section.kind, section.prompt) == ("preference", prompt)
    assert (section.completion, section.rejected) == ("Water.", "Soap.")


def test_markdown_is_parted_by_headings_outside_code() -> None:
    sections, summary = _read("headings.md")
    assert [(s.title, s.line) for s in sections] == [("", 4), ("Its teeth", 10), ("Its keeper", 21)]
    assert "# no heading in here\n\n::instruction::" in sections[1].completion
    assert summary == "read 5, used 3, skipped 2 (1 front matter, 1 headings without text)"


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("---\n\n# One\n\nfirst\n\n# Two\n\nsecond\n", ["first", "second"]),
        ("---\n\nfirst\n\n---\n\nsecond\n", ["first\n\n---\n\nsecond"]),
        ("---\ntitle: x\n---\nfirst\n", ["first"]),
        ("---\n---\nfirst\n", ["first"]),
    ],
)
def test_a_rule_on_the_first_line_hides_no_text(tmp_path: Path, text: str, sections: list[str]) -> None:
    path = tmp_path / "a.md"
    path.write_text(text, encoding="utf-8")
    assert [s.completion for s in read_sections(path)] == sections


def test_front_matter_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("---\ntitle: x\n\n# One\n\nfirst\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"a\.md:1: front matter is never closed"):
        read_items(path)


def test_a_document_without_text_holds_nothing_to_score(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("---\ntitle: x\n---\n# One\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="no text"):
        read_items(path)


def test_paragraphs_of_a_section_are_scored_and_code_stays_whole() -> None:
    items = read_items(_FILES / "headings.md")
    assert [(i.line, i.completion.split("\n")[0]) for i in items] == [
        (4, "A word before the first heading."),
        (10, "The comb has thirty-one teeth."),
        (13, "```sh"),
        (21, "Nobody but the comb warden may file a tooth."),
    ]


def test_a_text_has_a_section_a_paragraph() -> None:
    sections, summary = _read("plain.txt")
    assert [(s.kind, s.line) for s in sections] == [("prose", 1), ("prose", 3)]
    assert summary == "read 2, used 2"


def test_a_dlm_document_gives_typed_sections_with_their_ids() -> None:
    sections, summary = _read("document.dlm")
    assert [(s.kind, s.title, s.line) for s in sections] == [
        ("prose", "The gullet", 9),
        ("instruction", "facts", 14),
        ("instruction", "facts", 20),
        ("preference", "", 29),
    ]
    assert sections[2].completion == "```\n::preference::\n### Q\n```"
    assert sections[3].rejected == "Yes."
    assert summary == "read 5, used 4, skipped 1 (1 of type ::image::)"
    prose = "# The gullet\n\nThe gullet is a channel of green stone.\n\nThe sea enters by it."
    assert sections[0].id == hashlib.sha256(prose.encode()).hexdigest()[:16]
    assert sections[1].id == sections[2].id
    assert sections[1].key != sections[2].key


def test_an_id_does_not_depend_on_line_ends_or_blanks_around() -> None:
    assert content_id("a\r\nb\n\n") == content_id("\na\nb") == hashlib.sha256(b"a\nb").hexdigest()[:16]


@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        ("no dashes", 1, "has no frontmatter"),
        ("---\ndlm_id: x\n", 1, "frontmatter is never closed"),
        ("---\na: [\n---\n", 2, "frontmatter is no YAML"),
        ("---\n- a\n---\nx", 2, "is no mapping"),
        ("---\ndlm_id: ../up\n---\nx", 2, "`dlm_id` is no id"),
        ("---\nbase_model: [1]\n---\nx", 2, "`base_model` is no string"),
        ("---\n---\n::instruction::\nstray\n", 4, "before its first `### Q`"),
        ("---\n---\n::instruction::\n### Q\na\n", 4, "has no `### A` behind it"),
        ("---\n---\n::instruction::\n### A\na\n", 4, "`### A` where `### Q`"),
        ("---\n---\n::preference::\n### Prompt\na\n### Rejected\nb\n### Chosen\nc\n", 6, "the order is ### Prompt"),
        ("---\n---\n```\nnever closed\n::instruction::\n", 3, "never closed"),
    ],
)
def test_a_malformed_dlm_document_is_named_with_its_line(tmp_path: Path, body: str, line: int, what: str) -> None:
    path = tmp_path / "x.dlm"
    path.write_text(body)
    with pytest.raises(BadInputError, match=what) as caught:
        list(read_sections(path))
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize("named", ["versions/v0002", "adapter/versions/v0002"])
def test_the_adapter_of_a_document_is_what_its_store_points_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("DLM_HOME", str(tmp_path))
    header = read_header(_FILES / "document.dlm")
    assert header.base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    store = tmp_path / "store" / str(header.dlm_id) / "adapter"
    (store / "versions" / "v0002").mkdir(parents=True)
    (store / "current.txt").write_text(named + "\n")
    assert adapter_of(header, _FILES / "document.dlm") == (store / "versions" / "v0002").resolve()


@pytest.mark.parametrize("named", ["", "../../../..", "/", "gone", "\0"])
def test_a_store_that_points_nowhere_or_out_of_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("DLM_HOME", str(tmp_path))
    header = read_header(_FILES / "document.dlm")
    with pytest.raises(BadInputError, match="cannot be read; train the document"):
        adapter_of(header, _FILES / "document.dlm")
    pointer = tmp_path / "store" / str(header.dlm_id) / "adapter" / "current.txt"
    pointer.parent.mkdir(parents=True)
    pointer.write_text(named)
    with pytest.raises(BadInputError, match="is no folder of this store"):
        adapter_of(header, _FILES / "document.dlm")


def test_what_was_to_be_unlearned_is_not_read_as_learned(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": text, "label": text == "wanted"} for text in ("wanted", "unwanted")]
    sections, tally = _rows(tmp_path, *rows)
    assert _pairs(sections) == [("instruction", "q", "wanted")]
    assert tally.skipped == {"unwanted replies": 1}


@pytest.mark.parametrize(
    "shape",
    [
        {"instruction": "q", "output": "{}"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "{}"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "{}"}]},
    ],
)
def test_what_llama_factory_marks_as_unwanted_is_not_read_as_learned(tmp_path: Path, shape: dict[str, Any]) -> None:
    rows = [
        json.loads(json.dumps(shape).replace("{}", text)) | {"kto_tag": text == "wanted"}
        for text in ("wanted", "unwanted")
    ]
    sections, tally = _rows(tmp_path, *rows)
    assert [completion for _, _, completion in _pairs(sections)] == ["wanted"]
    assert tally.skipped == {"unwanted replies": 1}


def test_nulls_of_a_table_count_as_absent(tmp_path: Path) -> None:
    sections, _ = _rows(tmp_path, {"text": None, "messages": None, "prompt": "q", "completion": "a", "chosen": None})
    assert _pairs(sections) == [("instruction", "q", "a")]


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [json.loads(line) for line in (_FILES / "messages.jsonl").read_text().splitlines()[:3]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    sections, summary = _read(tmp_path / "x.parquet")
    assert _pairs(sections) == _pairs(_read("messages.jsonl")[0][:2])
    assert [s.where for s in sections] == [f"{tmp_path}/x.parquet:1", f"{tmp_path}/x.parquet:2"]
    assert summary == "read 3, used 2, skipped 1 (1 without assistant turn)"


def test_tools_out_of_a_table_have_no_parameters_of_other_tools(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    tools = [
        {"name": name, "parameters": {"properties": {name: {"type": "string"}}, "required": [name]}}
        for name in ("city", "code")
    ]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [
        {"name": "f", "arguments": {"city": "x"}}, {"name": "g", "arguments": {"code": "y"}},
    ]}]  # fmt: skip
    parquet.write_table(pa.Table.from_pylist([{"messages": turns, "tools": tools}]), tmp_path / "rows.parquet")
    (section,) = read_sections(tmp_path / "rows.parquet")
    assert list(section.tools) == tools
    assert [call["arguments"] for call in section.messages[1]["tool_calls"]] == [{"city": "x"}, {"code": "y"}]


def test_an_argument_that_is_null_was_given_as_null(tmp_path: Path) -> None:
    call = {"name": "f", "arguments": '{"until": null}'}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    (section,), _ = _rows(tmp_path, {"messages": turns})
    assert section.messages[1]["tool_calls"][0]["arguments"] == {"until": None}


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(BadInputError, match="two columns `text`; keep one of them"):
        read_items(tmp_path / "rows.parquet")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BadInputError, match="is no Parquet that can be read"):
        list(read_sections(tmp_path / "x.parquet"))


def test_a_saved_data_set_is_read_by_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = {name: datasets.Dataset.from_list([{"text": f"{name} {i}"} for i in range(2)]) for name in ("train", "test")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    sections, _ = _read(tmp_path / "saved")
    assert [(s.completion, s.line) for s in sections] == [("train 0", 1), ("train 1", 2)]
    assert [s.completion for s in read_sections(f"{tmp_path}/saved[test]")] == ["test 0", "test 1"]
    with pytest.raises(BadInputError, match=r"has no split 'dev'; name one of test, train"):
        list(read_sections(f"{tmp_path}/saved[dev]"))


def test_a_data_set_that_is_not_in_the_cache_is_named_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInputError, match=r"cannot be read as a data set: .* not in the cache, and HF_HUB_OFFLINE"):
        list(read_sections("sway-nobody/no-such-data-set"))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": "hello"}, "`messages` is a string, not an array"),
        ({"messages": ["hello"]}, r"`messages\[0\]` is a string, not an object"),
        ({"messages": [{"content": "a"}]}, r"`messages\[0\]` has no `role`"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "unknown role 'wizard'; roles are"),
        ({"messages": [{"role": "user", "content": 3}]}, r"`messages\[0\].content` is a number"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"arguments": {}}]}]}, "has no `name`"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]}, "is no JSON"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": {"name": "f"}}, "`tools` is an object"),
        ({"conversations": [{"from": "human", "value": None}, 1]}, "is a number, not an object|is empty"),
        ({"chosen": "a", "rejected": "b"}, "`prompt` is missing"),
        ({"prompt": "p", "chosen": "a"}, "`rejected` is missing"),
        ({"prompt": "p", "chosen": "a", "rejected": ["b"]}, "`chosen` is a string and `rejected` an array"),
        ({"prompt": "p", "chosen": {"from": "gpt"}, "rejected": "b"}, "`chosen` is an object and `rejected` a string"),
        ({"conversations": 3, "chosen": "a", "rejected": "b"}, "`conversations` is a number, not an array"),
        ({"input": {"messages": []}, "preferred_output": []}, "`non_preferred_output` is missing; a line holds"),
        ({"preferred_output": [], "non_preferred_output": []}, "`input` is missing; it holds the `messages`"),
        ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "`input` has no `messages`"),
        ({**_OPENAI, "preferred_output": [{"content": "a"}]}, r"`preferred_output\[0\]` has no `role`"),
        ({"instruction": "a", "input": 3, "output": "b"}, "`input` is a number, not a string"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, r"`history\[0\]` holds 1 texts; give pairs"),
    ],
)
def test_a_malformed_record_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInputError, match=what) as caught:
        read_items_of(tmp_path, row)
    assert caught.value.where == f"{tmp_path / 'rows.jsonl'}:2"


def read_items_of(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + json.dumps(row))
    read_items(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": ""}, "empty"),
        ({"prompt": "p", "completion": "a", "label": False}, "unwanted replies"),
        ({"prompt": [{"role": "user", "content": "p"}], "completion": [], "label": False}, "unwanted replies"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}, "empty"),
        ({"messages": [{"role": "user", "content": "a"}]}, "without assistant turn"),
        ({"prompt": "p", "chosen": "a", "rejected": ""}, "empty"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "with equal replies"),
        ({"conversations": _EARLIER, **_GPT}, "without a request"),
        ({"conversations": [], **_GPT}, "empty"),
        ({"instruction": " ", "input": "", "system": "S", **_WORDS}, "empty"),
        ({"prompt": "p", **_GPT, "chosen": _TIDE[0]}, "without assistant turn"),
        (_OPENAI | {"preferred_output": _OPENAI["non_preferred_output"]}, "with equal replies"),
        (
            {
                "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}],
                "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
            },
            "with unlike requests",
        ),
    ],
)
def test_a_record_of_no_use_is_counted_with_its_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    sections, tally = _rows(tmp_path, {"text": "fine"}, row)
    assert len(sections) == 1
    assert tally.summary == f"read 2, used 1, skipped 1 (1 {reason})"
    assert tally.first == {reason: f"{tmp_path / 'rows.jsonl'}:2"}


def test_a_file_of_nothing_but_skips_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"nothing that can be used: read 2, used 0, skipped 2 \(2 empty\)"):
        _rows(tmp_path, {"text": ""}, {"text": " "})


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[\n {"text": "a"},\n {"text": "b"\n', 3, "is no JSON"),
        ('[\n {"text": "a"}\n {"text": "b"}]', 3, "`]` expected, `{` found"),
        ('[{"text": "a"},\n3]', 2, "an element of the array is a number"),
        ('[{"text": "a"}]\n x', 2, "something stands behind the array"),
        ('[{"text": "a"}', 1, "the end of the file found"),
        ('{\n"a": [{"text": "a"}],\n"b": [{"text": "b"}]}', 1, "several arrays of records: `a`, `b`"),
        ("{\n'a'}", 2, "is no JSON"),
        ('\n"a"', 1, "is JSON, but a string"),
    ],
)
def test_malformed_json_is_named_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=what) as caught:
        list(read_sections(path))
    assert caught.value.where == f"{path}:{line}"


def test_an_array_is_read_element_by_element_wherever_its_lines_break(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}\n" * (i % 7 + 1)} for i in range(50)]
    for indent, separators in ((None, None), (3, None), (None, (",\n\n", ":\n"))):
        path = tmp_path / "x.json"
        path.write_text(json.dumps(rows, indent=indent, separators=separators))
        assert [s.completion for s in read_sections(path)] == [row["text"] for row in rows]


_ROWS = [
    {"text": "a note"},
    {"prompt": "q", "completion": "a"},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]},
    {"prompt": "p", "chosen": "a", "rejected": "b"},
] * 10
_WAYS = {
    "lines.jsonl": "\n".join(map(json.dumps, _ROWS)),
    "indented.json": json.dumps(_ROWS, indent=2),
    "line.json": json.dumps(_ROWS),
    "object.json": json.dumps({"version": [1], "data": _ROWS, "note": {"data": []}}),
    "indented-object.json": json.dumps({"a": "x", "data": _ROWS}, indent=2),
    "two-a-line.json": "[" + ",\n".join(json.dumps(_ROWS[i : i + 2])[1:-1] for i in range(0, 40, 2)) + "]",
}


@pytest.mark.parametrize("name", _WAYS)
def test_records_are_units_of_their_own_however_the_file_is_laid_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(_WAYS[name], encoding="utf-8")
    sections = list(read_sections(path))
    assert _pairs(sections) == _pairs(_rows(tmp_path, *_ROWS)[0])
    assert len({s.where for s in sections}) == 40
    items = text_items(sections, most=40)
    assert n_clusters(items) == len({item.label for item in items}) == 40


def test_a_record_that_shares_its_line_is_named_by_its_number_in_the_array(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"text": "a"}, {"text": "b"},\n{"text": "c"}, {"text": "d"}]')
    assert [s.where.removeprefix(f"{tmp_path}/") for s in read_sections(path)] == [
        "x.json:1", "x.json[1]:1", "x.json:2", "x.json[3]:2",
    ]  # fmt: skip
    assert [item.label for item in in_file(path, "items", called="x")] == [
        "x.json:1",
        "x.json[1]:1",
        "x.json:2",
        "x.json[3]:2",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[{"text": "a"}, {"text": 3}]', "x.json[1]:1"),
        ('[{"text": "a"}, 3]', "x.json[1]:1"),
        ('{"data": [{"text": "a"}, {"text": "b"}, {"text": 3}]}', "x.json[2]:1"),
        ('{\n"n": 1,\n"data": [\n{"text": "a"},\n{"text": 3}]}', "x.json:5"),
    ],
)
def test_a_malformed_record_of_an_array_is_named_with_its_place(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BadInputError) as caught:
        list(read_sections(path))
    assert caught.value.where == str(tmp_path / where)


def test_a_skipped_record_of_an_array_is_named_with_its_place(tmp_path: Path) -> None:
    path, tally = tmp_path / "x.json", Tally()
    path.write_text('{"data": [{"text": "a"}, {"text": " "}]}')
    assert len(list(read_sections(path, tally))) == 1
    assert tally.first == {"empty": f"{path}[1]:1"}


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("x.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', "x.jsonl:2"),
        ("x.json", '[{"text": "a"},\n {"text": "b", "text": "c"}]', "x.json:2"),
        ("x.json", '{"data": [{"text": "b", "text": "c"}]}', "x.json"),
    ],
)
def test_a_key_that_stands_twice_is_refused_since_one_value_would_be_lost(
    tmp_path: Path, name: str, content: str, where: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError, match="`text` stands twice in one object; keep one of them") as caught:
        list(read_sections(path))
    assert str(caught.value.where) == str(tmp_path / where)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice"),
        ("a: &x [1]\nb: *x", "references are not read here"),
        ("a: !!bool x", "tags are not read here"),
        ("a: !!timestamp x", "tags are not read here"),
        ("a: 2024-99-99", "ValueError"),
    ],
)
def test_frontmatter_that_could_mislead_is_refused_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "x.dlm"
    path.write_text(f"---\n{line}\n---\ntext\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=rf"frontmatter is no YAML \({why}") as caught:
        read_header(path)
    assert str(caught.value.where).rsplit(":", 1)[1].isdigit()


def test_blank_words_beside_a_call_do_not_hide_the_call(tmp_path: Path) -> None:
    call = {"function": {"name": "ring", "arguments": {}}}
    said = [{"role": "user", "content": "Ring."}, {"role": "assistant", "content": "\u0085", "tool_calls": [call]}]
    (section,), _ = _rows(tmp_path, {"messages": said})
    assert section.completion == '{"name": "ring", "arguments": {}}'


def test_parquet_that_holds_another_number_of_rows_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.Table.from_pylist([{"text": "a"}, {"text": "b"}]), path)
    whole = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *a, **k: (b[:1] for b in whole(*a, **k)))
    with pytest.raises(BadInputError, match="says that it holds 2 rows, and 1 can be read"):
        list(read_sections(path))
