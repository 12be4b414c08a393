"""Malformed data: each variant ends in a clear error with its place, or every record is used or counted."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.reader_fuzz import CORPUS, BrokenRuleError, check

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.readers import items_of, read_sections
from dlm_sway.data.reading import Tally

_FILES = sorted(p for p in (Path(__file__).parent / "files").iterdir() if p.suffix != ".parquet")
_WHERE = re.compile(r"x\.\w+((\[\d+\])?:\d+)?$")
_HOSTILE = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"}", b"[", b'"', b"\\ud800", b"null", b"1e999", b"NaN", b"\r"),
    *(
        b"::instruction::\n",
        b"### A\n",
        b"---\n",
        b"```\n",
        b'{"text": 1}',
        b"\x85",
        b"&a *a",
        b"!!python/object:os.system",
    ),
)


def _settled(path: Path) -> None:
    """Read a file to the end, and hold that nothing was lost without a word."""
    tally = Tally()
    if (fault := _fault(path, tally)) is not None:
        assert _WHERE.search(str(fault.where)), fault.where
        assert "\n" not in fault.one_line()
        assert fault.what
    assert tally.read - tally.skipped.total() == tally.used


def _fault(path: Path, tally: Tally) -> BadInputError | None:
    try:
        for section in read_sections(path, tally):
            assert section.completion.strip()
            assert items_of(section)
            assert len(section.id) == 16
    except BadInputError as fault:
        return fault
    return None


def test_each_kept_variant_ends_as_it_did_when_it_was_found(tmp_path: Path) -> None:
    """The malformed files that `make fuzz` found, one or a few of each outcome: none is read in silence."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    assert len({(row["name"], row["data"]) for row in rows}) == len(rows) >= 200
    assert {row["outcome"] for row in rows} == {"error", "error in file", "skipped"}
    found = [check(Path(row["name"]).suffix, base64.b64decode(row["data"]), tmp_path).kind for row in rows]
    changed = [(row, kind) for row, kind in zip(rows, found, strict=True) if kind != row["outcome"]]
    assert changed == []


@pytest.mark.parametrize(
    ("suffix", "content", "rule"),
    [
        (".jsonl", '{"text": "a"}\n{"text": "b"}\n', "2 records"),
        (".json", '[{"text": "a"}, {"text": "b"}]', "2 records"),
        (".md", "# One\na\n# Two\nb\n", "lost without a word"),
    ],
)
def test_the_fuzzer_notices_a_record_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, content: str, rule: str
) -> None:
    whole = Tally.sections
    monkeypatch.setattr(Tally, "sections", lambda tally, records: whole(tally, list(records)[:-1]))
    with pytest.raises(BrokenRuleError, match=rule):
        check(suffix, content.encode(), tmp_path)


def test_the_fuzzer_notices_another_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise KeyError("x")

    monkeypatch.setattr(Tally, "sections", broken)
    with pytest.raises(BrokenRuleError, match="KeyError"):
        check(".txt", b"a", tmp_path)


_EDITS = st.tuples(st.integers(0, 4000), st.integers(0, 60), st.sampled_from(_HOSTILE))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(_FILES),
    edits=st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 60), st.sampled_from(_HOSTILE)), min_size=1, max_size=4
    ),
)
def test_damaged_files_are_settled(tmp_path: Path, file: Path, edits: list[tuple[int, int, bytes]]) -> None:
    content = file.read_bytes()
    for at, gone, put in edits:
        place = at % (len(content) + 1)
        content = content[:place] + put + content[place + gone :]
    path = tmp_path / f"x{file.suffix}"
    path.write_bytes(content)
    _settled(path)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_VALUES = st.recursive(
    _LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(
        ["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type", "text"]
    ), v, max_size=4), max_leaves=12)  # fmt: skip
_ROWS = st.dictionaries(
    st.sampled_from(["text", "prompt", "completion", "instruction", "input", "output", "messages", "conversations",
                     "chosen", "rejected", "tools", "system", "cluster", "clutser", "x"]),
    _VALUES, max_size=5)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_ROWS, min_size=1, max_size=3), suffix=st.sampled_from(["jsonl", "json", "txt"]))
@example(rows=[{"messages": [{"role": "assistant", "tool_calls": "[]"}]}], suffix="jsonl")
@example(rows=[{"chosen": [{"role": "user", "content": "a"}], "rejected": []}], suffix="jsonl")
@example(rows=[{"chosen": {}, "rejected": {}}], suffix="json")
def test_rows_of_any_shape_are_settled(tmp_path: Path, rows: list[dict[str, Any]], suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    lines = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    path.write_text(lines, encoding="utf-8")
    _settled(path)


@pytest.mark.slow
def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """200 MB of JSONL: the peak of what Python holds stays far below, and the sample is whole."""
    import tracemalloc

    from dlm_sway.data.material import MOST, Source, read_material

    path = tmp_path / "large.jsonl"
    line = json.dumps({"text": "the tide comes in by the gullet and fills the ladle " * 20, "id": 0})
    with path.open("w", encoding="utf-8") as handle:
        for _ in range(200 * 2**20 // len(line)):
            handle.write(line + "\n")
    tracemalloc.start()
    material = read_material((Source(str(path)),))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"peak {peak / 2**20:.0f} MB of {path.stat().st_size / 2**20:.0f} MB")
    assert len(material.sections) == MOST
    assert peak < 60 * 2**20
