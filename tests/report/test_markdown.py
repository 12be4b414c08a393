from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report.samples import HOSTILE, hostile, snapshot, stored

from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.markdown import MAX_BYTES, to_markdown
from dlm_sway.report.markdown_text import in_html, inert


@pytest.mark.parametrize("kind", ["check", "suite"])
def test_the_comment_is_as_it_was_looked_at(kind: str) -> None:
    text = to_markdown(stored(kind))
    assert text == snapshot(f"{kind}.md", text)


def test_the_verdict_comes_first_and_details_are_folded() -> None:
    text = to_markdown(stored("suite"))
    assert text.startswith("## 🛑 ERROR: tidal-bell\n")
    assert text.count("<details>") == text.count("</details>") > 5
    assert text.index("**Next**") < text.index("<details>")


def _large(n: int, *, width: int) -> SuiteResult:
    rows = [{"label": f"item {i}", "value": 0.5, "text": "w" * width} for i in range(30)]
    probes = tuple(
        ProbeResult(name=f"probe {i}", kind="k", verdict=Verdict.PASS, message="m" * width, evidence={"per_item": rows})
        for i in range(n)
    )
    return SuiteResult(name="large", probes=probes, next_steps=("s" * width,) * n)


@pytest.mark.parametrize(("n", "width"), [(5, 200), (60, 60), (9, 5000), (600, 20)])
def test_any_suite_fits_a_comment_and_says_what_was_left_out(n: int, width: int) -> None:
    text = to_markdown(_large(n, width=width))
    assert len(text.encode()) < MAX_BYTES
    assert re.search(r"\*[\d,]+ more (claim|probe|row)s? in the JSON\*", text)


def test_every_row_of_a_table_has_the_same_cells_however_hostile_its_text() -> None:
    for line in to_markdown(hostile()).splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 7)


def test_hostile_text_becomes_no_link_image_mention_html_or_formula() -> None:
    text = to_markdown(hostile())
    body = re.sub(r"</?(details|summary|b|sub)>", "", text)
    assert "<" not in body
    assert "javascript:" in body
    assert not re.search(r"(?<!\\)\[", body)
    assert not re.search(r"@\w|://|www\.|#\d", re.sub(r"&#\d+;", "", body.replace("&#8203;", "\u200b")))
    assert not set(text) & {"\x1b", "\x00", "\x07", "\u202e"}
    assert not re.search(r"(?<!\\)\$", body)


@pytest.mark.parametrize("text", ["- x", "+ x", "# x", "1. x", "12) x", "> x", "=====", "-----", "```", "    x", ":-:"])
def test_text_that_would_begin_a_block_is_a_plain_line(text: str) -> None:
    assert re.match(r"\\|\d+\\|&|x", inert(text))


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(HOSTILE), max_size=40) | st.text(max_size=40))
def test_no_text_at_all_opens_a_tag_ends_a_cell_or_mentions(text: str) -> None:
    for shown in (inert(text), in_html(text)):
        assert not re.search(r"[<>\n]", shown)
        assert not re.search(r"(?<!\\)(\\\\)*\|", shown)
        assert not re.search(r"@\w|://", shown)
