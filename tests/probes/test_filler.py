from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.models import CHAT, byte_tokenizer

from dlm_sway.backends.dummy_text import DummyCodec
from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.filler import behind, encoded, fillers, with_tail

CODEC = TextEncoder(byte_tokenizer(merges=(("t", "h"), ("th", "e"), ("Ġ", "a"), ("Ċ", "Ċ"))), max_length=4096)
CHATTING = TextEncoder(byte_tokenizer(template=CHAT), max_length=4096)
TURNS = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})


@pytest.mark.parametrize("length", [8, 17, 256, 1000])
@pytest.mark.parametrize(
    ("item", "codec", "form"),
    [
        (TextItem("the bell", " rings at noon", "c", "i"), CODEC, "raw"),
        (TextItem("the bell", " rings at noon", "c", "i"), CHATTING, "auto"),
        (TextItem("", "rings at noon", "c", "i", messages=TURNS), CHATTING, "auto"),
        (TextItem("钟声", "在正午响起", "c", "i"), CODEC, "raw"),
        (TextItem("w50 w51", " w52", "c", "i"), DummyCodec(vocab_size=96, max_length=4096, chat_template=False), "raw"),
    ],
)
def test_exactly_so_many_tokens_stand_before_the_same_scored_ones(
    item: TextItem, codec: Any, form: Any, length: int
) -> None:
    (filler,) = fillers(1, codec, rng=np.random.default_rng(0))
    plain = encoded(item, codec, form)
    longer = encoded(behind(item, filler, length, codec, form), codec, form)
    assert longer.start - plain.start == length
    assert longer.ids[longer.start :].tolist() == plain.ids[plain.start :].tolist()


def test_the_context_is_natural_text_that_ends_where_a_passage_ends() -> None:
    (filler,) = fillers(1, CODEC, rng=np.random.default_rng(0))
    given = behind(TextItem("the bell", " rings", "c", "i"), filler, 300, CODEC, "raw").prompt
    assert CODEC.decode(filler).endswith(given.removesuffix("\n\nthe bell"))
    assert len(set(given.split())) > 30


def test_no_passage_stands_in_two_contexts() -> None:
    texts = [CODEC.decode(ids) for ids in fillers(3, CODEC, rng=np.random.default_rng(1))]
    passages = [set(text.split("\n\n")) for text in texts]
    assert not passages[0] & passages[1]
    assert not passages[1] & passages[2]


def test_a_context_longer_than_the_corpus_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"no natural text of exactly 9 tokens .*context_lengths"):
        behind(TextItem("a", "b", "c", "the item"), np.arange(5), 9, CODEC, "raw")


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("one two three", "one"),
        ("钟声在正午响起", None),
        ("x" * 40, "x" * 24),
        (" a b", " a"),
    ],
)
def test_the_end_of_a_text_is_what_is_scored(text: str, head: str | None) -> None:
    item = with_tail(TextItem("", text, "c", "i"), CODEC, span=16)
    assert item is not None
    assert item.prompt + item.completion == text
    assert item.prompt
    if head is not None:
        assert item.prompt == head
    assert CODEC.encode_pair(item.prompt, item.completion).n_scored <= 16


@pytest.mark.parametrize("text", ["a", " a ", "  "])
def test_a_text_of_one_piece_has_no_end_of_its_own(text: str) -> None:
    assert with_tail(TextItem("", text, "c", "i"), CODEC, span=16) is None
