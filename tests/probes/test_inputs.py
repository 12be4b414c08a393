from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.inputs import clusters, require_unseen, shown, subset, tokens_about


def _items(n: int, *, words: int = 14, strata: int = 1, prompt: str = "") -> tuple[TextItem, ...]:
    return tuple(TextItem(prompt, "word " * words, str(i), str(i), f"s{i % strata}") for i in range(n))


def _chosen(items: tuple[TextItem, ...], *, tokens: int = 100, cut: int = 32, seed: int = 0) -> tuple[TextItem, ...]:
    return subset(items, tokens=tokens, cut=cut, rng=np.random.default_rng(seed))


def test_the_budget_is_kept_in_whole_items() -> None:
    assert tokens_about(_items(1)[0]) == 20
    assert len(_chosen(_items(40), tokens=100)) == 5
    assert len(_chosen(_items(40), tokens=119)) == 5
    assert len(_chosen(_items(3), tokens=100)) == 3


def test_a_long_item_counts_by_what_is_read_of_it_and_its_prompt_in_full() -> None:
    assert len(_chosen(_items(40, words=700), tokens=100, cut=20)) == 5
    assert len(_chosen(_items(40, words=14, prompt="word " * 56), tokens=200)) == 2


def test_one_item_is_always_chosen() -> None:
    assert len(_chosen(_items(4, words=500), tokens=16, cut=32)) == 1


@pytest.mark.parametrize("tokens", [60, 100, 160, 240])
def test_strata_are_balanced(tokens: int) -> None:
    uneven = _items(9) + tuple(TextItem("", "word " * 14, f"b{i}", f"b{i}", "rare") for i in range(5))
    counts = Counter(item.stratum for item in _chosen(uneven, tokens=tokens))
    assert abs(counts["s0"] - counts["rare"]) <= 1 or counts["rare"] == 5


def test_the_choice_follows_from_the_items_and_the_seed() -> None:
    items = _items(40, strata=3)
    assert _chosen(items) == _chosen(items)
    assert _chosen(items) != _chosen(items, seed=1)
    assert _chosen(items)[0] != _chosen(items, seed=1)[0] or _chosen(items)[1] != _chosen(items, seed=1)[1]


def test_a_larger_budget_only_adds() -> None:
    items = _items(40, strata=4)
    assert _chosen(items, tokens=300)[:5] == _chosen(items, tokens=100)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(16, 400), st.integers(0, 9))
def test_no_item_is_chosen_twice_and_none_is_invented(words: list[int], tokens: int, seed: int) -> None:
    items = tuple(TextItem("", "word " * n, str(i), str(i), str(i % 3)) for i, n in enumerate(words))
    chosen = _chosen(items, tokens=tokens, seed=seed)
    assert 1 <= len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(items)
    assert len(chosen) == 1 or sum(min(32, tokens_about(i)) for i in chosen) <= tokens


def test_a_text_that_is_given_again_counts_with_its_first() -> None:
    item = TextItem("p", "some text", "a", "1")
    again = [item, replace(item, cluster="b"), replace(item, cluster="c", completion="some  text\n")]
    other = [replace(item, cluster="d", prompt="q"), replace(item, cluster="e", messages=({"role": "user"},))]
    assert clusters([*again, *other]) == ["a", "a", "a", "d", "e"]


TRAINED = (
    TextItem("Where is the bell?", "Below the pier.", "a", "1"),
    TextItem("", "Below the pier.", "b", "2", messages=({"role": "user", "content": "Where?\nThe bell."},)),
)


@pytest.mark.parametrize(
    "item",
    [
        replace(TRAINED[0], completion="Below  the\npier.\n"),
        replace(TRAINED[0], prompt="Where is\tthe bell?"),
        replace(TRAINED[1], messages=({"content": "Where?  The bell.", "role": "user"},)),
    ],
)
def test_a_held_out_item_that_differs_in_blanks_alone_was_seen(item: TextItem) -> None:
    with pytest.raises(BadInputError, match="1 held-out items are also in the training data, such as 'Below"):
        require_unseen(TRAINED, [item, TextItem("", "another text", "c", "3")])


@pytest.mark.parametrize(
    "item",
    [
        replace(TRAINED[0], completion="Belowthe pier."),
        replace(TRAINED[1], messages=({"role": "user", "content": "Where? The bells."},)),
        replace(TRAINED[1], messages=({"role": "system", "content": "Where?\nThe bell."},)),
    ],
)
def test_a_held_out_item_of_other_words_or_to_another_turn_is_unseen(item: TextItem) -> None:
    require_unseen(TRAINED, [item])


def test_a_text_is_shown_on_one_line_and_shortened() -> None:
    assert shown("a\n  b\tc") == "a b c"
    assert shown("x" * 200) == "x" * 159 + "…"
