from __future__ import annotations

from pathlib import Path

import pytest

from dlm_sway.data.choose import items_by_section, text_items
from dlm_sway.data.readers import read_sections

MARKDOWN = "before\n\n# One\n\nfirst\n\nsecond\n\n# Two\n\nthird\n\n# One\n\nlast\n"
DLM = """---
dlm_id: 01HRZDEMO0000000000000BELL
base_model: hf:org/name
---
# Parts

prose
::instruction#facts::
### Q
a?
### A
b
### Q
c?
### A
d
::preference::
### Prompt
p
### Chosen
x
### Rejected
y
"""


def _by_section(path: Path, text: str) -> list[tuple[str, str]]:
    path.write_text(text)
    return [(i.cluster, i.completion) for i in items_by_section(tuple(read_sections(path)), most=96)]


def test_the_text_under_each_heading_is_a_section_by_its_title(tmp_path: Path) -> None:
    assert _by_section(tmp_path / "a.md", MARKDOWN) == [
        ("a.md:1", "before"),
        ("One", "first"),
        ("One", "second"),
        ("Two", "third"),
        ("One (2)", "last"),
    ]


def test_questions_of_one_section_of_a_document_are_kept_together(tmp_path: Path) -> None:
    found = _by_section(tmp_path / "a.dlm", DLM)
    assert found == [("Parts", "prose"), ("facts", "b"), ("facts", "d"), ("a.dlm:18", "x")]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "one\ntwo\n"), ("a.jsonl", '{"text": "one"}\n{"text": "two"}\n'), ("a.md", "# One\n\nalone\n")],
)
def test_lines_records_and_a_single_heading_are_no_sections(tmp_path: Path, name: str, text: str) -> None:
    assert _by_section(tmp_path / name, text) == []


def test_the_texts_are_those_that_are_read_anyway(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("".join(f"# {h}\n\n" + "".join(f"text {h} {i}\n\n" for i in range(20)) for h in "abc"))
    sections = tuple(read_sections(path))
    read = text_items(sections, most=10, seed=3)
    assert [i.completion for i in items_by_section(sections, most=10, seed=3)] == [i.completion for i in read]
