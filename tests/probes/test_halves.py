from __future__ import annotations

import unicodedata

import pytest

from dlm_sway.probes.halves import halves, tail


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("one two three four", ("one two", " three four")),
        ("  one two  ", ("one", " two")),
        ("a\n\nb", ("a", "\n\nb")),
        ("x verylongwordthathasnogapsinit", ("x verylongwordth", "athasnogapsinit")),
        ("今天天气很好我们去公园", ("今天天气很好", "我们去公园")),
        ("ab", ("a", "b")),
    ],
)
def test_a_text_is_cut_between_words_near_its_middle(text: str, cut: tuple[str, str]) -> None:
    assert halves(text) == cut
    assert "".join(cut) == text.strip()


@pytest.mark.parametrize("text", ["", " ", "a", "\u200d", "e\u0301"])
def test_a_text_without_two_halves_has_none(text: str) -> None:
    assert halves(text) is None


@pytest.mark.parametrize("text", ["e\u0301" * 9, "👩‍👩‍👧‍👦" * 3, "👍🏽" * 5, "नमस्ते" * 3, "שָׁלוֹם" * 3])
def test_no_character_is_parted_from_its_marks(text: str) -> None:
    first, second = halves(text) or ("", "")
    assert first + second == text
    assert not unicodedata.category(second[0]).startswith("M")
    assert second[0] != "\u200d" != first[-1]
    assert ord(second[0]) not in range(0x1F3FB, 0x1F400)


def test_the_end_of_a_text_begins_with_a_word() -> None:
    assert tail("one two three four", 30) == "one two three four"
    assert tail("one two three four", 12) == "three four"
    assert tail("今天天气很好我们去公园", 4) == "们去公园"
    assert tail("x" * 50, 10) == "x" * 10
