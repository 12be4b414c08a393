from __future__ import annotations

import base64
import hashlib
import re
import sys
from functools import cache
from html.parser import HTMLParser

import pytest
from tests.report.samples import hostile, snapshot, stored

from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.html.page import MAX_BYTES, to_html
from dlm_sway.report.html.svg import rebuilt

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Reads a page; fails where an element is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


@cache
def _suite_page() -> str:
    return to_html(stored("suite"))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("kind", ["check", "suite"])
def test_the_page_without_pictures_is_as_it_was_looked_at(kind: str) -> None:
    # Pictures change with the library that draws them, style and script have tests of their own.
    text = re.sub(r"(?s)<(style|script)>.*?</\1>", r"<\1></\1>", to_html(stored(kind)))
    text = re.sub(r"sha256-[\w+/=]+", "sha256-", text)
    assert text == snapshot(f"{kind}.html", text)


@pytest.mark.usefixtures("without_pictures")
def test_without_the_extra_there_are_tables_and_the_command_that_brings_pictures() -> None:
    page = Page(to_html(stored("suite")))
    assert page.named("svg") == []
    assert "pip install altair vl-convert-python" in page.text
    assert "null draw" in page.text


def test_each_effect_curve_matrix_and_layer_map_is_drawn_with_a_text_for_it() -> None:
    pictures = Page(_suite_page()).named("svg")
    labels = [str(picture["aria-label"]) for picture in pictures]
    assert all(picture["role"] == "img" for picture in pictures)
    for said in (
        "39 null draws",
        "declared minimum 0.1",
        "95 % interval",
        "highest at",
        "columns: ",
        "84 modules",
        "5 largest",
    ):
        assert any(said in label for label in labels), said


def test_the_page_loads_nothing_and_its_policy_allows_one_style_and_one_script() -> None:
    text = _suite_page()
    page = Page(text)
    (policy,) = (m["content"] or "" for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"(?s)<{tag}>(.*?)</{tag}>", text)
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in policy
    assert page.named("img", "iframe", "object", "embed", "form", "base", "image", "use") == []
    assert [link["href"] for link in page.named("link")] == ["data:,"]
    assert all((a["href"] or "").startswith("#") for a in page.named("a"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name in ("style", "src")]
    assert "url(" not in text


@pytest.mark.parametrize("pictures", [True, False])
def test_hostile_text_is_shown_and_never_becomes_part_of_the_page(
    pictures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pictures:
        monkeypatch.setitem(sys.modules, "altair", None)
    text = to_html(hostile())
    page = Page(text)
    assert len(page.named("script")) == 1
    assert page.named("img", "b", "i") == []
    assert "{{ 7*7 }}" in text
    assert any("<script>document.title" in found for found in page.text)
    assert bool(page.named("svg")) is pictures
    assert not set(text) & {"\x1b", "\x00", "\x07", "\u202e"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_headings_landmarks_and_tables_have_names() -> None:
    page = Page(_suite_page())
    assert [len(page.named(tag)) for tag in ("h1", "main", "header", "footer")] == [1, 1, 1, 1]
    assert all(attrs.get("aria-labelledby") for attrs in page.named("section"))
    assert all(attrs.get("aria-label") for attrs in page.named("nav", "meter"))
    assert len(page.named("caption")) == len(page.named("table"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {(a["href"] or "")[1:] for a in page.named("a")}
    assert targets <= set(ids)


def test_a_huge_suite_stays_under_the_limit_and_says_what_was_left_out() -> None:
    rows = [{"label": f"item {i}", "value": 0.5, "text": "w" * 300, "more": "x" * 300} for i in range(200)]
    evidence = {"per_item": rows, "matrix": {"labels": ["a"] * 30, "values": [[1.0] * 30] * 30}}
    probes = tuple(
        ProbeResult(name=f"probe {i}", kind="k", verdict=Verdict.FAIL, message="m" * 900, evidence=evidence)
        for i in range(60)
    )
    text = to_html(SuiteResult(name="huge", probes=probes, next_steps=("s" * 3000,) * 20))
    assert len(text.encode()) < MAX_BYTES
    assert "more rows are in the JSON" in text
    assert "more probes are in the JSON" in text


def test_an_empty_suite_is_a_page_too() -> None:
    assert "no probe ran" in Page(to_html(SuiteResult(name="s"))).text


def test_a_picture_is_rebuilt_from_what_is_allowed() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="x()" width="1">'
        '<script>x()</script><style>*{}</style><image href="http://x"/>'
        '<a xlink:href="http://x"><text>in a link</text></a>'
        '<rect fill="url(http://x)" stroke="#0a0b10" onclick="x()" style="fill:red" x="1.23456"/>'
        '<g><path role="graphics-symbol" aria-label="&lt;b&gt;" d="M0"/></g><text>&lt;script&gt;</text></svg>'
    )
    made = rebuilt(svg, label='"> <x')
    assert re.findall(r"<([a-z:]+\d?)", made) == ["svg", "rect", "g", "path", "title", "text"] or "ns0" in made
    for gone in ("onload", "onclick", "style", "http://x", "image", "in a link", "<script"):
        assert gone not in made
    assert 'stroke="var(--ink)"' in made
    assert 'x="1.2"' in made
    assert "&lt;b&gt;" in made


def test_the_same_result_gives_the_same_page() -> None:
    assert to_html(stored("check")) == to_html(stored("check"))
