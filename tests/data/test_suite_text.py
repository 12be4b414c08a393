"""Texts as a suite holds them: whatever they are, they are read back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlm_sway.data.autogen import autogen
from dlm_sway.data.material import Source
from dlm_sway.data.suite_text import block
from dlm_sway.suite.yaml_file import read_yaml

_LINES = st.text(st.sampled_from("ab \n\t-:#|>'\"&*\u00e9\u6f6e\u2028"), max_size=12)
_ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _read_back(values: list[object]) -> object:
    """Return what stands in a file whose last list is `values`, and whose next key is read too."""
    lines = ["suite:", "  - name: x", "    texts:", *block(values, 6), "    next: 1"]
    (probe,) = yaml.safe_load("\n".join(lines) + "\n")["suite"]
    assert probe["next"] == 1
    return probe["texts"]


@pytest.mark.parametrize("text", ["\n", "\n\n", "a\n\n", "a\nb\n\n\n", " \n\n", "a\n"])
def test_a_text_that_ends_with_blank_lines_may_come_last(text: str) -> None:
    assert _read_back(["a", text]) == ["a", text]
    assert _read_back([{"text": text}]) == [{"text": text}]


@settings(deadline=None)
@given(st.lists(_LINES | _ANY, min_size=1, max_size=4))
@example(["a", "...\n\n"])
def test_any_texts_come_back_as_they_were_written(texts: list[str]) -> None:
    assert _read_back(list(texts)) == texts


def test_answers_that_end_with_blank_lines_make_a_suite(tmp_path: Path) -> None:
    rows = [{"prompt": f"Where is w{i}?", "completion": f" It is by the mole {i * 7}.\n\n"} for i in range(40)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    written = autogen([Source(str(tmp_path / "d.jsonl"))], base="org/tiny-135M")
    (tmp_path / "s.yaml").write_text(written.text, encoding="utf-8")
    suite = read_yaml(tmp_path / "s.yaml").value["suite"]
    style = next(probe for probe in suite if probe["kind"] == "style_fingerprint")
    assert sorted(style["reference"]) == sorted(row["completion"] for row in rows)
