from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm_sway.report.text import clean, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("a\x1b(Bb\x1bcc", "abc"),
        ("a\r\nb\tc\u2028d", "a  b c d"),
        ("\u202eabc\u200b", "abc"),
        ("\x07\x00\x7f\x85 ", ""),
        ("a\udc80", "a\N{REPLACEMENT CHARACTER}"),
        ("naïve 日本 👍", "naïve 日本 👍"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_escape_codes_and_control_characters_are_taken_out(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = clean(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert clean(shown) == shown


def test_long_text_is_cut() -> None:
    assert clean("x" * 10_000, limit=10) == "x" * 9 + "…"
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
