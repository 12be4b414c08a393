from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.errors import BadInputError, ExitCode
from dlm_sway.data.readers import DataItem, file_hash, read_items


def _write(folder: Path, content: str | bytes, name: str = "data.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _fault(folder: Path, content: str | bytes, name: str = "data.jsonl") -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        read_items(_write(folder, content, name))
    assert caught.value.exit_code == ExitCode.USAGE
    assert "\n" not in caught.value.one_line()
    return caught.value


def test_each_line_of_plain_text_is_an_item(tmp_path: Path) -> None:
    path = _write(tmp_path, "one\ntwo\r\n  three")
    assert read_items(path) == (
        DataItem("", "one", str(path), 1, f"{path}:1"),
        DataItem("", "two", str(path), 2, f"{path}:2"),
        DataItem("", "  three", str(path), 3, f"{path}:3"),
    )


def test_paragraphs_are_items_where_a_blank_line_stands_between_them(tmp_path: Path) -> None:
    items = read_items(_write(tmp_path, "\n\na\nb\n \t\n\nc\n\n", "doc.md"))
    assert [(i.completion, i.line) for i in items] == [("a\nb", 3), ("c", 7)]


def test_blank_lines_at_the_ends_make_no_paragraphs(tmp_path: Path) -> None:
    assert [i.completion for i in read_items(_write(tmp_path, "\n\na\nb\n\n"))] == ["a", "b"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read_items(_write(tmp_path, b"\xef\xbb\xbfone\n"))[0].completion == "one"
    assert read_items(_write(tmp_path, b'\xef\xbb\xbf{"text": "one"}\n', "x.jsonl"))[0].completion == "one"


def test_jsonl_gives_text_prompts_and_clusters(tmp_path: Path) -> None:
    lines = [
        {"text": "plain"},
        {"prompt": "q", "completion": " a", "cluster": "doc-1"},
        {"prompt": "", "completion": "b", "cluster": 7, "meta": [1]},
        {"text": "x", "cluster": None},
    ]
    path = _write(tmp_path, "\n\n".join(map(json.dumps, lines)), "d.JSONL")
    assert [(i.prompt, i.completion, i.line, i.cluster) for i in read_items(path)] == [
        ("", "plain", 1, f"{path}:1"),
        ("q", " a", 3, "doc-1"),
        ("", "b", 5, "7"),
        ("", "x", 7, f"{path}:7"),
    ]


def test_jsonl_is_known_by_its_first_line_whatever_the_name(tmp_path: Path) -> None:
    assert read_items(_write(tmp_path, '\n{"text": "a"}\n', "data.txt"))[0].completion == "a"


def test_text_that_starts_with_a_brace_stays_text(tmp_path: Path) -> None:
    assert [i.completion for i in read_items(_write(tmp_path, "{not json}\nb"))] == ["{not json}", "b"]


@pytest.mark.parametrize("content", ["", "\n \n\t\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["data.txt", "data.jsonl"])
def test_an_empty_file_is_named(tmp_path: Path, content: str | bytes, name: str) -> None:
    assert f"{name}: holds no text; put a paragraph" in _fault(tmp_path, content, name).one_line()


def test_a_missing_file_is_named_with_its_neighbour(tmp_path: Path) -> None:
    _write(tmp_path, "x", "train.jsonl")
    with pytest.raises(BadInputError, match=r"trian.jsonl: no such file; did you mean .*train.jsonl\?"):
        read_items(tmp_path / "trian.jsonl")
    with pytest.raises(BadInputError, match="no such file; check the path"):
        read_items(tmp_path / "nowhere" / "data.txt")


def test_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is a directory, not a file; name one text or JSONL file in it"):
        read_items(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInputError, match="no regular file"):
        read_items(tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = _write(tmp_path, "x")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    for read in (read_items, file_hash):
        with pytest.raises(BadInputError, match="cannot be read: Permission denied; check the file's permissions"):
            read(path)


def test_text_that_is_not_utf8_is_named_with_line_and_offset(tmp_path: Path) -> None:
    fault = _fault(tmp_path, b"fine\ncaf\xe9\n", "data.txt")
    assert fault.where == str(tmp_path / "data.txt") + ":2"
    assert "byte 0xe9 at offset 8 of the file" in fault.what
    assert "iconv -f LATIN1 -t UTF-8" in (fault.remedy or "")


def test_the_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    assert "offset 4 of" in _fault(tmp_path, b"\xef\xbb\xbfa\xff", "data.txt").what


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (gzip.compress(b'{"text": "a"}'), r"compressed \(gzip\), and no text; unpack it: `gunzip -k a.jsonl.gz`"),
        (b"\x28\xb5\x2f\xfd\x04\x00", r"compressed \(zstandard\)"),
        (b"\xfd7zXZ\0\0", r"compressed \(xz\)"),
        (b"PK\x03\x04\x14\0", "zip archive"),
        (b"PAR1\x15\x04", "is Parquet, and no text; give it the ending .parquet"),
    ],
    ids=["gzip", "zstandard", "xz", "zip", "parquet"],
)
def test_what_is_packed_is_named_with_the_way_to_unpack_it(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(raw)
    with pytest.raises(BadInputError, match=message):
        read_items(path)


@pytest.mark.parametrize("name", ["a.csv", "A.TSV"])
def test_the_lines_of_a_table_are_no_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('prompt,completion\nq,"a, b"\n')
    with pytest.raises(BadInputError, match="is a table"):
        read_items(path)


def test_utf16_is_recognised(tmp_path: Path) -> None:
    assert "iconv -f UTF-16" in (_fault(tmp_path, "one".encode("utf-16"), "data.txt").remedy or "")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    assert "NUL byte at offset 2 of the file" in _fault(tmp_path, b"a\n\0b", "data.txt").what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{'text': 1}", r"is no JSON \(Expecting property name"),
        ("text", r"is no JSON \(Expecting value"),
        ("[" * 100_000, "is JSON nested too deeply"),
        ('["a"]', "is JSON, but an array and not an object; put one object on each line; `jq"),
        ('"a"', "is JSON, but a string and not an object"),
        ("3", "is JSON, but a number and not an object"),
        ("null", "is JSON, but null and not an object"),
        ("{}", "has no keys; a line holds `text`, or `prompt` and `completion`"),
        ('{"a": 1, "b": 2}', "has `a`, `b`; a line holds"),
        ('{"txt": "a"}', "did you mean `text` where it says `txt`"),
        ('{"instruction": "a", "response": "b"}', "`output` is missing; did you mean `output` where"),
        ('{"question": "a", "answer": "b"}', "did you mean `prompt` where it says `question`"),
        ('{"prompt": "a", "response": "b"}', "`completion` is missing; did you mean `completion` where it says `resp"),
        ('{"completion": "b"}', "`prompt` is missing; a line holds"),
        ('{"text": "a", "prompt": "b"}', "holds both `text` and `prompt`/`completion`; keep one"),
        ('{"text": 3}', "`text` is a number, not a string"),
        ('{"text": null}', "`text` is null, not a string"),
        ('{"text": " "}', "`text` is empty; fill it or take the line out"),
        ('{"prompt": "a", "completion": ""}', "`completion` is empty"),
        ('{"prompt": ["a"], "completion": "b"}', "`prompt` is an array, not a string"),
        ('{"text": "a", "cluster": 1.5}', "`cluster` is a number, not a string"),
        ('{"text": "a", "cluster": true}', "`cluster` is a boolean, not a string"),
        ('{"text": "a", "cluster": ""}', "`cluster` is empty; give it a name"),
        ('{"text": "a", "clutser": "x"}', "unknown key `clutser`; did you mean `cluster`"),
        ('{"text": "\\ud800"}', "`text` holds half a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(BadInputError, match=what) as caught:
        read_items(_write(tmp_path, f'{{"text": "fine"}}\n\n{line}\n', "data.jsonl"))
    assert caught.value.where == str(tmp_path / "data.jsonl") + ":3"


def test_a_pretty_printed_array_in_a_file_named_jsonl_gets_the_name_that_is_read(tmp_path: Path) -> None:
    assert "is read from a file named .json" in _fault(tmp_path, '[\n  {"text": "a"}\n]\n', "data.jsonl").one_line()


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    assert file_hash(_write(tmp_path, b"a\r\n")) == hashlib.sha256(b"a\r\n").hexdigest()
    with pytest.raises(BadInputError, match="no such file"):
        file_hash(tmp_path / "absent")


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), _TEXT), min_size=1, max_size=5))
def test_any_jsonl_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    lines = [json.dumps({"prompt": p, "completion": c}, ensure_ascii=i % 2 == 0) for i, (p, c) in enumerate(pairs)]
    path = _write(tmp_path_factory.mktemp("jsonl"), "\n".join(lines), "d.jsonl")
    assert [(i.prompt, i.completion) for i in read_items(path)] == pairs
