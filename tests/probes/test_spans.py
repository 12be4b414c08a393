from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.base import Messages
from dlm_sway.core.determinism import stream
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Scores, Span, TextItem
from dlm_sway.probes.spans import draw_spans, extractable, recited

SPAN = Span(50, 50)


def documents(*lengths: int) -> list[TextItem]:
    """Documents of about so many tokens."""
    words = [round(0.7 * n) for n in lengths]
    return [TextItem("", f"d{i} " + "w " * (n - 1), str(i), f"d{i}") for i, n in enumerate(words)]


def drawn(items: list[TextItem], *, most: int, seed: int = 0) -> tuple[TextItem, ...]:
    return draw_spans(items, SPAN, most=most, rng=stream(seed, "spans"))


def test_every_document_gives_a_span_and_a_long_one_more_in_proportion() -> None:
    counts = Counter(item.cluster for item in drawn(documents(30, 100, 1000, 2000), most=200))
    assert counts == {"0": 1, "1": 1, "2": 10, "3": 20}


def test_few_spans_are_shared_out_by_length() -> None:
    counts = Counter(item.cluster for item in drawn(documents(100, 10_000, 20_000), most=33))
    assert counts["0"] == 1
    assert counts["2"] == pytest.approx(2 * counts["1"], abs=1)
    assert sum(counts.values()) <= 33


def test_of_more_documents_than_spans_some_are_drawn_anywhere_in_the_list() -> None:
    chosen = [int(item.cluster) for item in drawn(documents(*[100] * 500), most=40)]
    assert len(chosen) == len(set(chosen)) == 40
    assert min(chosen) < 100
    assert max(chosen) > 400


def test_spans_of_a_document_are_spread_over_it() -> None:
    places = sorted(item.at for item in drawn(documents(1000), most=200))
    assert [int(10 * at) for at in places] == list(range(10))


def test_a_document_twice_counts_once_and_an_item_with_a_prompt_gives_one_span() -> None:
    long = TextItem("p", "w " * 5000, "p", "p")
    found = drawn([*documents(100), *documents(100), long], most=200)
    assert sorted(item.cluster for item in found) == ["0", "p"]


def test_replies_to_different_conversations_are_two_and_keep_them() -> None:
    asked: list[Messages] = [({"role": "user", "content": text},) for text in ("a?", "b?", "b?\n")]
    replies = [TextItem("", "w " * 5000, str(i), f"r{i}", messages=m) for i, m in enumerate(asked)]
    found = {item.label: item.messages for item in drawn(replies, most=200)}
    assert found == {"r0[0]": asked[0], "r2[0]": asked[2]}


def test_the_order_is_random_and_follows_the_seed() -> None:
    items = documents(*[100] * 30)
    orders = [[item.cluster for item in drawn(items, most=200, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=int)


@pytest.mark.parametrize(("tries", "chance"), [(1, 0.5), (100, 0.5), (1000, 0.1)])
def test_extractable_means_at_least_one_of_so_many_samples_with_that_chance(tries: int, chance: float) -> None:
    limit = 1 - (1 - chance) ** (1 / tries)
    logprobs = np.log(np.array([limit * 1.001, limit * 0.999, 1.0]))
    assert extractable(logprobs, tries=tries, chance=chance).tolist() == [True, False, True]
    assert math.isclose(1 - (1 - limit) ** tries, chance)


def scores(tokens: list[int], **values: Any) -> Scores:
    items = tuple(TextItem("", "t " * n, str(i), f"s{i}") for i, n in enumerate(tokens))
    offsets = np.cumsum([0, *tokens])
    grids = {name: np.asarray(x, dtype=np.float64)[None] for name, x in values.items()}
    return Scores(items, (FINETUNED,), offsets, grids, np.full(offsets[-1], -0.5))


def test_a_span_is_recited_greedily_where_each_of_its_tokens_comes_first() -> None:
    rank, base_rank = np.ones(60), np.ones(60)
    rank[45], base_rank[[3, 45]] = 2, 2
    found = recited([scores([20, 20, 20], gain=np.full(60, 0.1), rank=rank, base_rank=base_rank)])
    assert found.greedy.tolist() == [True, True, False]
    assert found.base_greedy.tolist() == [False, True, False]
    np.testing.assert_allclose(found.base, -10.0)
    np.testing.assert_allclose(found.finetuned, -8.0)


def test_pieces_too_short_to_tell_are_dropped_by_name() -> None:
    ones = np.ones(15 + 16)
    found = recited([scores([15, 16], gain=0 * ones, rank=ones, base_rank=ones)])
    assert [item.label for item in found.items] == ["s1"]
    assert found.dropped == ({"label": "s0", "why": "scored tokens: 15, too few to tell"},)
    assert len(recited([])) == 0
