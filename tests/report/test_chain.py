"""A walk along the chain in every format: the panel of links, the picture of what is left, and the way back."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from tests.report.samples import FOLDER, hostile_chain, snapshot, stored
from tests.report.test_html import Page

from dlm_sway.chain.result import ChainResult, Finding, Link
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.report.chain_terminal import print_chain
from dlm_sway.report.document import document_of
from dlm_sway.report.html.page import to_html
from dlm_sway.report.json import to_json
from dlm_sway.report.junit import to_junit
from dlm_sway.report.markdown import to_markdown
from dlm_sway.report.read import read_result
from dlm_sway.report.schema import result_schemas

Printed = Callable[..., str]


@pytest.fixture(scope="module")
def walk() -> ChainResult:
    found = stored("chain")
    assert isinstance(found, ChainResult)
    return found


def test_a_stored_walk_is_read_and_written_again_byte_for_byte(walk: ChainResult) -> None:
    text = (FOLDER / "chain-v1.json").read_text(encoding="utf-8")
    assert to_json(walk) == text
    assert (walk.verdict, walk.links[2].verdict) == (Verdict.FAIL, Verdict.FAIL)


@pytest.mark.parametrize("make", [lambda: stored("chain"), hostile_chain])
def test_what_is_written_meets_the_schema_and_comes_back(make: Callable[[], Any]) -> None:
    text = to_json(make())
    jsonschema.validate(json.loads(text), result_schemas()["chain"])
    assert read_result(text) == make()


def test_a_flipped_verdict_in_a_file_is_not_believed(walk: ChainResult) -> None:
    document = json.loads(to_json(walk)) | {"verdict": "pass"}
    document["links"][2]["verdict"] = "pass"
    assert read_result(json.dumps(document)) == walk


def test_a_newer_walk_is_refused_with_the_way_out(walk: ChainResult) -> None:
    document = json.loads(to_json(walk)) | {"schema_version": 2}
    with pytest.raises(BadInputError, match=r"reads up to 1; update sway"):
        read_result(json.dumps(document))


def test_the_summary_names_the_first_broken_link_and_the_steps_what_to_do(walk: ChainResult) -> None:
    document = document_of(walk)
    assert document.summary == "broken at GGUF: drowned in quantisation"
    assert document.steps[0] == "GGUF: keep more bits, or serve base and adapter side by side"
    assert document.steps[-1] == "Mend that first, or look at served too with --all"


@pytest.mark.parametrize(
    ("verdict", "summary"),
    [
        (Verdict.PASS, "whole from adapter to merged"),
        (Verdict.WARN, "whole from adapter to merged, with a warning"),
        (Verdict.INCONCLUSIVE, "undecided: merged"),
        (Verdict.ERROR, "broken at merged: it said no"),
    ],
)
def test_the_summary_of_other_walks(verdict: Verdict, summary: str) -> None:
    good = Link(name="adapter", what="a", findings=(Finding(step="static", verdict=Verdict.PASS),))
    other = Link(name="merged", what="m", findings=(Finding(step="static", verdict=verdict, message="it said no"),))
    assert document_of(ChainResult(adapter="a", base="b", links=(good, other))).summary == summary


def test_the_panel_has_a_line_a_link_and_what_behaviour_says_comes_first(walk: ChainResult) -> None:
    lines = {link.name: (str(link.verdict), link.shown, link.cause) for link in document_of(walk).links}
    assert lines == {
        "adapter": ("warn", "100.0%", ""),
        "merged": ("pass", "99.9% [100%, 100%]", ""),
        "GGUF": ("fail", "91.2% [84%, 98%]", "drowned in quantisation"),
        "served": ("skip", "", ""),
    }


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_is_as_it_was_looked_at(walk: ChainResult, printed: Printed, width: int) -> None:
    text = printed(lambda console: print_chain(walk, console), width=width)
    assert text == snapshot(f"chain-{width}.txt", text)


def test_the_comment_is_as_it_was_looked_at(walk: ChainResult) -> None:
    text = to_markdown(walk)
    assert text == snapshot("chain.md", text)


def test_the_page_without_pictures_is_as_it_was_looked_at(walk: ChainResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    text = re.sub(r"(?s)<(style|script)>.*?</\1>", r"<\1></\1>", to_html(walk))
    text = re.sub(r"sha256-[\w+/=]+", "sha256-", text)
    assert text == snapshot("chain.html", text)


def test_the_page_draws_what_is_left_at_each_link_and_says_it_too(walk: ChainResult) -> None:
    page = Page(to_html(walk))
    labels = [str(picture["aria-label"]) for picture in page.named("svg")]
    (panel,) = [label for label in labels if label.startswith("effect left, link by link")]
    assert "GGUF 91.2% [84%, 98%]" in panel
    assert "dashed: 90%" in panel
    assert any("12 modules" in label for label in labels)  # the scale by module of the merged weights


def test_the_cases_of_junit_are_the_steps(walk: ChainResult) -> None:
    cases = ET.fromstring(to_junit(walk)).findall("./testsuite/testcase")  # noqa: S314 (our own output)
    named = [(case.get("classname"), case.get("name")) for case in cases]
    assert named[0] == ("sway.chain", "adapter: static")
    assert len(named) == sum(len(link.findings) for link in walk.links)
    failure = cases[-1].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("drowned in quantisation: 91.2%")


def test_a_walk_shows_itself_in_a_notebook(walk: ChainResult) -> None:
    assert "broken at GGUF" in walk._repr_html_()
    assert list(walk.to_frame()["claim"])[:2] == ["adapter: static", "adapter: static"]


@pytest.mark.parametrize("pictures", [True, False])
def test_hostile_text_is_shown_and_never_becomes_part_of_the_page(
    pictures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pictures:
        monkeypatch.setitem(sys.modules, "altair", None)
    text = to_html(hostile_chain())
    page = Page(text)
    assert len(page.named("script")) == 1
    assert page.named("img", "b", "i") == []
    assert not set(text) & {"\x1b", "\x00", "\x07", "\u202e"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_hostile_text_is_inert_in_a_comment_and_on_a_terminal(printed: Printed) -> None:
    text = to_markdown(hostile_chain())
    assert "<script" not in text
    assert "@octocat" not in text
    shown = printed(lambda console: print_chain(hostile_chain(), console), force_terminal=True, color_system=None)
    assert not set(shown) & {"\x00", "\x07", "\u202e"}
    assert "\x1b[31mred" not in shown
