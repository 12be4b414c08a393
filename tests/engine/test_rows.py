"""Items to rows: each token scored once, with context, within the window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.backends.base import Encoded
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Span, TextItem
from dlm_sway.engine.rows import Row, rows_of


class LetterCodec:
    """A token a letter, after one prefix token."""

    has_chat_template = False

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def encode_pair(self, prompt: str, completion: str, **_: Any) -> Encoded:
        return Encoded(np.array([1, *map(ord, prompt + completion)]), 1 + len(prompt))

    def encode_prompt(self, prompt: str, **_: Any) -> np.ndarray:
        return np.array([1, *map(ord, prompt)])

    def decode(self, ids: np.ndarray) -> str:
        return "".join(map(chr, ids))


def rows(prompt: str, completion: str, *, limit: int, **options: Any) -> tuple[Row, ...]:
    item = TextItem(prompt, completion, "c", "the item")
    ask = Ask((item,), (FINETUNED,), frozenset({"gain"}), **options)
    return rows_of(item, ask, LetterCodec(limit))


@settings(deadline=None)
@given(n_prompt=st.integers(0, 12), n_completion=st.integers(1, 60), limit=st.integers(2, 40))
def test_every_token_of_the_completion_is_scored_once_in_order(n_prompt: int, n_completion: int, limit: int) -> None:
    text = "".join(chr(100 + i) for i in range(n_prompt + n_completion))
    prompt, completion = text[:n_prompt], text[n_prompt:]
    if 1 + n_prompt >= limit:
        with pytest.raises(BadInputError, match="the item"):
            rows(prompt, completion, limit=limit)
        return
    parts = rows(prompt, completion, limit=limit)
    assert [t for r in parts for t in r.targets] == list(map(ord, completion))
    whole = [1, *map(ord, text)]
    for row in parts:
        assert len(row.ids) <= limit
        assert row.n_scored == len(row.ids) - row.first
        # What is read is a piece of the text, and each logit predicts the token after what was read.
        begin = whole.index(row.ids[0])
        assert row.ids.tolist() == whole[begin : begin + len(row.ids)]
        assert row.targets.tolist() == whole[begin + row.first + 1 : begin + len(row.ids) + 1]


def test_later_windows_keep_half_a_window_of_context() -> None:
    first, *later = rows("", "x" * 50, limit=16)
    assert first.first == 0
    assert [r.first + 1 for r in later] == [8] * len(later)


def test_a_text_that_just_fits_is_one_row() -> None:
    assert len(rows("ab", "c" * 14, limit=16)) == 1  # 17 tokens, of which the last is only predicted
    assert len(rows("ab", "c" * 15, limit=16)) == 2


def test_a_prompt_that_fills_the_window_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"the item: the prompt has 16 tokens and the model reads 16; shorten"):
        rows("p" * 15, "c", limit=16)


def test_max_tokens_scores_the_first_tokens() -> None:
    (row,) = rows("ab", "cdef", limit=32, max_tokens=2)
    assert row.targets.tolist() == [ord("c"), ord("d")]
    assert row.ids.tolist() == [1, *map(ord, "abc")]


def test_max_tokens_beyond_the_completion_change_nothing() -> None:
    assert rows("ab", "cd", limit=32, max_tokens=99)[0].key == rows("ab", "cd", limit=32)[0].key


def test_max_tokens_of_nothing_are_refused() -> None:
    with pytest.raises(BadInputError, match="max_tokens"):
        rows("ab", "cd", limit=32, max_tokens=0)


def test_the_last_position_has_no_target() -> None:
    (row,) = rows("abc", "ignored", limit=32, position="last")
    assert (row.ids.tolist(), row.first, row.targets.tolist()) == ([1, *map(ord, "abc")], 3, [-1])
    (alone,) = rows("", "abc", limit=32, position="last")
    assert alone.key == row.key


def test_a_prompt_beyond_the_window_has_no_last_position() -> None:
    assert rows("p" * 15, "", limit=16, position="last")
    with pytest.raises(BadInputError, match=r"the item: the prompt has 17 tokens"):
        rows("p" * 16, "", limit=16, position="last")


def test_equal_rows_share_a_key_and_different_ones_do_not() -> None:
    keys = {
        rows(prompt, completion, limit=32, **options)[0].key
        for prompt, completion, options in [
            ("ab", "cd", {}), ("a", "bcd", {}), ("ab", "ce", {}), ("ab", "cdx", {}), ("abc", "", {"position": "last"}),
        ]
    }  # fmt: skip
    assert len(keys) == 5
    assert rows("ab", "cd", limit=32)[0].key == rows("ab", "cdzzz", limit=32, max_tokens=2)[0].key


class _ChatCodec(LetterCodec):
    """Renders a prompt between marks where it is asked to; a text without a prompt stays as it is."""

    has_chat_template = True

    def encode_prompt(self, prompt: str, *, format: str = "raw", **_: Any) -> np.ndarray:  # noqa: A002 (the protocol's)
        chat = format == "chat" or (format == "auto" and bool(prompt))
        return super().encode_prompt(f"[{prompt}]" if chat else prompt)

    def encode_pair(self, prompt: str, completion: str, *, format: str = "raw", **_: Any) -> Encoded:  # noqa: A002 (the protocol's)
        head = self.encode_prompt(prompt, format=format)
        return Encoded(np.append(head, [ord(c) for c in completion]), len(head))


@pytest.mark.parametrize(
    ("prompt", "completion", "given", "read"),
    [
        ("ab", "", "raw", "ab"),
        ("ab", "", "chat", "[ab]"),
        ("ab", "c", "auto", "[ab]"),
        ("", "cd", "auto", "cd"),
        ("", "cd", "raw", "cd"),
        ("", "cd", "chat", "[]cd"),
        ("", "", "chat", "[]"),
        ("", "", "auto", ""),
    ],
)
def test_the_next_token_is_asked_for_after_the_prompt_as_it_is_rendered_where_a_completion_is_scored(
    prompt: str, completion: str, given: Any, read: str
) -> None:
    item = TextItem(prompt, completion, "c", "the item")
    ask = Ask((item,), (FINETUNED,), frozenset({"kl"}), position="last", format=given)
    (row,) = rows_of(item, ask, _ChatCodec(99))
    assert "".join(map(chr, row.ids[1:])) == read
    assert row.first == len(row.ids) - 1


class _BareCodec(LetterCodec):
    """Puts nothing before a text, as many chat models do."""

    def encode_pair(self, prompt: str, completion: str, **_: Any) -> Encoded:
        return Encoded(np.array([*map(ord, prompt + completion)]), max(1, len(prompt)))


ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def piece(text: str, at: float, *, given: int = 3, scored: int = 4, codec: Any = None, **fields: Any) -> Row:
    item = TextItem(fields.pop("prompt", ""), text, "c", "the item", at=at)
    ask = Ask((item,), (FINETUNED,), frozenset({"gain"}), span=Span(given, scored), **fields)
    (row,) = rows_of(item, ask, codec or LetterCodec(99))
    return row


@pytest.mark.parametrize(("at", "first"), [(0.0, 3), (0.5, 13), (1.0, 22)])
def test_a_span_is_scored_behind_the_tokens_right_before_it(at: float, first: int) -> None:
    row = piece(ALPHABET, at)
    assert "".join(map(chr, row.targets)) == ALPHABET[first : first + 4]
    assert row.ids.tolist() == [1, *map(ord, ALPHABET[first - 3 : first + 3])]  # the prefix token, and nothing else
    assert row.n_scored == len(row.ids) - row.first


def test_a_span_of_a_model_without_a_prefix_token_begins_with_its_own_tokens() -> None:
    row = piece(ALPHABET, 0.5, codec=_BareCodec(99))
    assert row.ids.tolist() == [*map(ord, ALPHABET[10:16])]
    assert "".join(map(chr, row.targets)) == ALPHABET[13:17]


@pytest.mark.parametrize(("text", "read", "scored"), [("abcdef", "abc", "def"), ("abcde", "ab", "cde"), ("a", "", "a")])
def test_a_text_shorter_than_its_span_is_cut_in_half(text: str, read: str, scored: str) -> None:
    for at in (0.0, 0.7, 1.0):
        row = piece(text, at)
        assert "".join(map(chr, row.targets)) == scored
        assert row.ids.tolist() == [1, *map(ord, read + scored[:-1])]


@settings(deadline=None)
@given(n=st.integers(1, 80), given=st.integers(1, 20), scored=st.integers(1, 20), at=st.floats(0, 1))
def test_every_span_lies_inside_its_text(n: int, given: int, scored: int, at: float) -> None:
    text = "".join(chr(100 + i) for i in range(n))
    row = piece(text, at, given=given, scored=scored)
    whole = "".join(map(chr, [*row.ids[1:], row.targets[-1]]))
    assert whole in text
    assert len(whole) == min(n, given + scored)
    assert row.n_scored == (scored if n >= given + scored else n - n // 2)


@pytest.mark.parametrize("fault", [{"at": 1.5}, {"at": float("nan")}, {"prompt": "p"}, {"given": 0}, {"scored": 0}])
def test_a_span_that_is_none_is_refused_by_name(fault: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="the item: a span is a piece of a text without a prompt"):
        piece(ALPHABET, **{"at": 0.5, **fault})


def test_a_span_beyond_the_window_is_refused_by_name() -> None:
    assert piece(ALPHABET, 0.0, codec=LetterCodec(7)).n_scored == 4
    with pytest.raises(BadInputError, match="the item: a span of 3 and 4 tokens does not fit: the model reads 6"):
        piece(ALPHABET, 0.0, codec=LetterCodec(6))


class _Conversing(_ChatCodec):
    """Renders each turn between marks."""

    def encode_messages(self, messages: Any, tools: Any = None, *, add_generation_prompt: bool = True) -> np.ndarray:
        del tools
        text = "".join(f"{turn['role'][0]}[{turn['content']}]" for turn in messages)
        return LetterCodec.encode_prompt(self, text + ">" * add_generation_prompt)

    def encode_reply(self, messages: Any, completion: str, tools: Any = None) -> Encoded:
        head = self.encode_messages(messages, tools)
        return Encoded(np.append(head, [ord(c) for c in completion]), len(head))

    def tools_refusal(self) -> str | None:
        return None


TURNS = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})


@pytest.mark.parametrize(("position", "scored"), [("completion", "de"), ("last", None)])
def test_a_conversation_stands_in_the_place_of_the_prompt(position: Any, scored: str | None) -> None:
    item = TextItem("", "def", "c", "the item", messages=TURNS)
    ask = Ask((item,), (FINETUNED,), frozenset({"kl"}), position=position, format="raw", max_tokens=2)
    (row,) = rows_of(item, ask, _Conversing(99))
    assert "".join(map(chr, row.ids[1:])) == "u[a]a[b]u[c]>" + (scored or "")[:1]
    assert row.targets.tolist() == ([-1] if scored is None else list(map(ord, scored)))


@pytest.mark.parametrize(
    ("prompt", "codec", "why"),
    [("p", _Conversing(99), "both a prompt and a conversation"), ("", LetterCodec(99), "renders no conversations")],
)
def test_a_conversation_that_cannot_be_given_is_refused(prompt: str, codec: Any, why: str) -> None:
    item = TextItem(prompt, "d", "c", "the item", messages=TURNS)
    with pytest.raises(BadInputError, match=f"the item: .*{why}"):
        rows_of(item, Ask((item,), (FINETUNED,), frozenset({"kl"})), codec)
