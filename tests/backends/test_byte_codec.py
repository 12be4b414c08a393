from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm_sway.backends.base import TextCodec
from dlm_sway.backends.byte_codec import ByteCodec, Piece, over_bytes, piece_of
from dlm_sway.core.errors import BadInputError

CODEC = ByteCodec(max_length=64)


def test_it_is_a_codec_of_bytes() -> None:
    assert isinstance(CODEC, TextCodec)
    pair = CODEC.encode_pair("ab", "cé")
    assert (pair.ids.tolist(), pair.start) == ([97, 98, 99, 0xC3, 0xA9], 2)
    assert CODEC.decode(pair.ids) == "abcé"
    assert CODEC.decode(pair.ids[:-1]) == "abc"


def test_a_text_without_a_prompt_begins_behind_a_line_feed() -> None:
    pair = CODEC.encode_pair("", "a")
    assert (pair.ids.tolist(), pair.start) == ([10, 97], 1)
    assert CODEC.encode_prompt("").tolist() == [10]


def test_what_holds_nothing_or_asks_for_a_template_is_refused() -> None:
    with pytest.raises(BadInputError, match="the completion is empty"):
        CODEC.encode_pair("a", "")
    with pytest.raises(BadInputError, match="two chat templates"):
        CODEC.encode_pair("a", "b", format="chat")


def test_each_token_lies_evenly_on_its_bytes() -> None:
    piece = Piece("abcdef", 2, 0, 4)
    found = over_bytes(piece, [1, 3, 6], 1, np.array([-2.0, -3.0]))
    assert found.tolist() == [-2.0, -1.0, -1.0, -1.0]


def test_a_token_of_a_part_of_a_character_falls_on_its_last_byte() -> None:
    piece = Piece("a漢", 1, 0, 3)
    found = over_bytes(piece, [1, 2, 2, 2], 1, np.array([-3.0, -1.0, -0.5]))
    assert found.tolist() == [-1.0, -1.0, -2.5]


@given(st.text(min_size=1, max_size=12), st.integers(0, 40), st.integers(1, 12), st.data())
def test_no_log_prob_is_lost_wherever_a_window_cuts(text: str, boundary: int, length: int, data: st.DataObject) -> None:
    raw = CODEC.encode(text + "end")
    boundary = boundary % (len(raw) - 1) + 1
    given_part, scored = raw[:boundary], raw[boundary : boundary + length]
    piece = piece_of(given_part, scored)
    assert piece.n_bytes == len(scored)
    whole = bytes(raw[: boundary + length].tolist()).decode(errors="ignore")
    assert whole.endswith(piece.text)
    scored_bytes = len(piece.text[piece.boundary :].encode())
    assert piece.begin + scored_bytes <= piece.n_bytes
    ends = sorted(data.draw(st.lists(st.integers(1, max(1, len(piece.text))), max_size=6)))
    if not piece.text[piece.boundary :]:
        return
    ends = [*ends, len(piece.text)]
    start = next(i for i, end in enumerate(ends) if end > piece.boundary)
    logprobs = -np.arange(1.0, len(ends) - start + 1)
    found = over_bytes(piece, ends, start, logprobs)
    assert found.shape == (piece.n_bytes,)
    assert found.sum() == pytest.approx(logprobs.sum())
