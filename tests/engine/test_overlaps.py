"""Rows of the same tokens that are wanted from different places on are read once, and say what they said before."""

from __future__ import annotations

import numpy as np
from tests.models import backend_of

from dlm_sway.core.views import FINETUNED, rotations
from dlm_sway.engine.ask import Ask, Reducer, Span, TextItem
from dlm_sway.engine.run import Engine

GAIN: frozenset[Reducer] = frozenset({"gain"})
MORE: frozenset[Reducer] = frozenset({"gain", "rank"})
ITEMS = tuple(TextItem("", text, str(i), "") for i, text in enumerate(["the bell is struck", "water falls below it"]))
WHOLE = Ask(ITEMS, (FINETUNED,), GAIN, format="raw")
SECOND_HALF = Ask(ITEMS, (FINETUNED,), MORE, span=Span(50, 50))


def _tokens(*asks: Ask) -> int:
    engine = Engine(backend_of("llama", "all-linear"))
    engine.answer(asks)
    return engine.view_tokens_done


def test_a_text_and_its_second_half_are_one_reading() -> None:
    assert _tokens(WHOLE, SECOND_HALF) == _tokens(WHOLE)


def test_each_ask_gets_the_part_that_it_wants() -> None:
    backend = backend_of("llama", "all-linear")
    together = Engine(backend).answer([SECOND_HALF, WHOLE])
    for scores, ask in zip(together, (SECOND_HALF, WHOLE), strict=True):
        (alone,) = Engine(backend).answer([ask])
        np.testing.assert_array_equal(scores.offsets, alone.offsets)
        np.testing.assert_allclose(scores.base_logprob, alone.base_logprob, atol=1e-5)
        for name in ask.reducers:
            np.testing.assert_allclose(scores.values[name], alone.values[name], atol=1e-5)
    assert together[0].offsets[-1] < together[1].offsets[-1]


def test_a_later_ask_for_a_part_of_what_was_read_reads_nothing() -> None:
    engine = Engine(backend_of("llama", "all-linear"))
    engine.answer([Ask(ITEMS, (FINETUNED,), MORE, format="raw")])
    before = engine.view_tokens_done
    engine.answer([SECOND_HALF])
    assert engine.view_tokens_done == before


def test_rows_under_other_views_stay_apart() -> None:
    under_nulls = Ask(ITEMS, (FINETUNED, *rotations(seed=0, n_draws=3)), GAIN, span=Span(50, 50))
    assert _tokens(WHOLE, under_nulls) == _tokens(WHOLE) + _tokens(under_nulls)
