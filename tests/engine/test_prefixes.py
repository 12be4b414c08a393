from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.views import FINETUNED, View, rotations
from dlm_sway.engine.pack import Chunk, Need, heads, pack
from dlm_sway.engine.prefixes import Cluster, fit, share, tokens
from dlm_sway.engine.rows import Row

PROMPT = tuple(range(100, 120))  # 20 tokens


def row(prompt: tuple[int, ...], completion: tuple[int, ...]) -> Row:
    """A row that scores `completion` after `prompt`; its last token is predicted and never read."""
    ids = np.array([*prompt, *completion], dtype=np.int64)
    return Row(ids[:-1], len(prompt) - 1, ids[len(prompt) :])


def covered(clusters: list[Cluster], alone: list[Row]) -> Counter[tuple[bytes, int, int]]:
    return Counter(r.key for r in itertools.chain(*(c.rows for c in clusters), alone))


def test_options_of_one_prompt_share_all_of_it_but_its_last_token() -> None:
    rows = [row(PROMPT, (i, i + 1)) for i in range(4)]
    clusters, alone = share(rows, n_views=10)
    assert not alone
    assert [(c.length, len(c.rows)) for c in clusters] == [(19, 4)]
    assert (clusters[0].width, clusters[0].longest) == (20, 2)


def test_a_prefix_never_reaches_a_wanted_logit() -> None:
    long = row(PROMPT, tuple(range(8)))
    early = row(PROMPT[:10], (*PROMPT[10:], *range(8)))  # reads the same tokens, but wants logits from the tenth on
    clusters, _ = share([long, early], n_views=40)
    assert [c.length for c in clusters] == [9]


def test_rows_that_begin_differently_stay_alone() -> None:
    rows = [row((i, *PROMPT), (1, 2)) for i in range(5)]
    assert share(rows, n_views=40) == ([], rows)


def test_short_prefixes_stay_alone() -> None:
    rows = [row(PROMPT[:8], (i, i)) for i in range(50)]
    assert share(rows, n_views=40) == ([], rows)


def test_what_saves_less_than_a_pass_costs_stays_alone() -> None:
    rows = [row(PROMPT, (i, i)) for i in range(2)]
    assert share(rows, n_views=2) == ([], rows)
    assert share(rows, n_views=40)[0]


def test_prompts_behind_one_short_context_are_clustered_by_prompt() -> None:
    rows = [row((*PROMPT[:8], *(p * 50 + np.arange(30)).tolist()), (a, a)) for p in range(4) for a in range(5)]
    clusters, alone = share(rows, n_views=10)
    assert not alone
    assert sorted((c.length, len(c.rows)) for c in clusters) == [(37, 5)] * 4


def test_prompts_behind_one_long_context_are_one_cluster() -> None:
    rows = [row((*range(200, 300), p, p + 1), (a,)) for p in range(6) for a in range(2)]
    clusters, alone = share(rows, n_views=10)
    assert not alone
    assert [(c.length, len(c.rows)) for c in clusters] == [(100, 12)]


def test_a_conversation_that_grows_turn_by_turn_needs_no_deep_stack() -> None:
    rows = [row(tuple(range(10 + n)), (1000 + n,)) for n in range(1500)]
    clusters, alone = share(rows, n_views=2)
    assert sum(len(c.rows) for c in clusters) + len(alone) == 1500


def test_no_rows_make_no_plan() -> None:
    assert share([], n_views=3) == ([], [])


TEXTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25), st.integers(1, 4)), max_size=25, unique=True)


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.integers(1, 40))
def test_every_row_is_planned_once_and_shares_what_its_cluster_says(
    texts: list[tuple[int, int, int]], n_views: int
) -> None:
    rows = [row((*[7] * 9, context, *range(length), 90), (5,) * n) for context, length, n in texts]
    clusters, alone = share(rows, n_views=n_views)
    assert covered(clusters, alone) == Counter(r.key for r in rows)
    for cluster in clusters:
        assert len({r.ids[: cluster.length].tobytes() for r in cluster.rows}) == 1
        assert len(cluster.rows) > 1
        assert cluster.length >= 8
        assert all(cluster.length <= r.first for r in cluster.rows)
    saved = sum((len(c.rows) - 1) * c.length for c in clusters)
    assert saved == 0 or saved * n_views >= 128


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_rows(texts: list[tuple[int, int, int]], rng: object) -> None:
    rows = [row((*[7] * 9, context, *range(length), 90), (5,) * n) for context, length, n in texts]
    shuffled = list(rows)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = share(rows, n_views=9)[0], share(shuffled, n_views=9)[0]
    assert sorted((c.length, [r.key for r in c.rows]) for c in one) == sorted(
        (c.length, [r.key for r in c.rows]) for c in other
    )


def test_parts_stay_within_the_budget_unless_a_cluster_alone_exceeds_it() -> None:
    rows = [row((p, *PROMPT, *range(p)), (a, a)) for p in range(12) for a in range(3)]
    clusters, _ = share(rows, n_views=6)
    parts = list(fit(clusters, n_views=6, batch_tokens=600))
    assert Counter(c.rows[0].key for p in parts for c in p) == Counter(c.rows[0].key for c in clusters)
    assert len(parts) > 1
    assert all(6 * tokens(p) <= 600 for p in parts)
    assert all(len(p) == 1 for p in fit(clusters, n_views=6, batch_tokens=1))


def packed(rows: list[Row], *, shares: Callable[[], bool], batch_tokens: int = 400, stacks: bool = True) -> list[Chunk]:
    views: tuple[View, ...] = (FINETUNED, *rotations(seed=0, n_draws=8))
    needs = [Need(r, dict.fromkeys(views), {"kl"}) for r in rows]
    found = heads(needs, stacks=stacks, shares=shares)
    needs = [replace(need, row=replace(need.row, head=found[need.row.key])) for need in needs]
    return list(pack(needs, batch_tokens=batch_tokens, views_per_pass=len, stacks=stacks))


def test_a_cluster_too_large_for_the_budget_is_read_under_fewer_views_at_a_time() -> None:
    rows = [row(PROMPT, (i, i + 1)) for i in range(4)]
    chunks = packed(rows, shares=lambda: True, batch_tokens=100)
    assert all(len(c.rows) == 4 and {r.head for r in c.rows} == {19} for c in chunks)
    assert all((1 + len(c.views)) * (20 + 2) <= 100 for c in chunks)
    assert [v for c in chunks for v in c.views] == [FINETUNED, *rotations(seed=0, n_draws=8)]
    assert len(packed(rows, shares=lambda: True, batch_tokens=100, stacks=False)) == 1


def test_a_large_cluster_is_cut_so_that_results_come_at_a_steady_pace() -> None:
    chunks = packed([row(PROMPT, (i, i + 1)) for i in range(600)], shares=lambda: True)
    assert sum(len(c.rows) for c in chunks) == 600
    assert len(chunks) > 1
    assert all(c.view_tokens <= 10 * 400 for c in chunks)


def test_tokens_of_a_prefix_are_counted_once_a_view() -> None:
    (chunk,) = packed([row(PROMPT, (i, i + 1)) for i in range(4)], shares=lambda: True)
    assert chunk.view_tokens == 10 * (20 + 4 * 2)
    other = replace(row(PROMPT[::-1], (0, 1)), head=17)
    two = Chunk((*chunk.rows[:1], other), chunk.views, chunk.reducers)
    assert two.view_tokens == 10 * (2 * 20 + 2 + 4)


def test_prefixes_of_other_widths_stay_apart_whatever_the_budget() -> None:
    rows = [row((p, *PROMPT, *range(p)), (a, a)) for p in (1, 2, 9) for a in range(3)]
    clusters, _ = share(rows, n_views=40)
    parts = [sorted(c.length for c in part) for part in fit(clusters, n_views=40, batch_tokens=10**6)]
    assert parts == [[21, 22], [29]]


def test_what_is_shared_follows_from_what_is_asked_and_not_from_what_is_missing() -> None:
    rows = [row(PROMPT, (i, i + 1)) for i in range(4)]
    views = dict.fromkeys((FINETUNED, *rotations(seed=0, n_draws=8)))
    found = heads([Need(r, views, {"kl"}) for r in rows], stacks=True, shares=lambda: True)
    assert set(found.values()) == {19}
    left = Need(replace(rows[0], head=19), dict.fromkeys((FINETUNED,)), {"kl"})
    (chunk,) = pack([left], batch_tokens=2048, views_per_pass=len, stacks=True)
    assert chunk.shares


def test_halves_of_a_chunk_keep_what_their_rows_share() -> None:
    (chunk,) = packed([row(PROMPT, (i, i + 1)) for i in range(5)], shares=lambda: True)
    halves = chunk.halves()
    assert [[r.head for r in h.rows] for h in halves] == [[19] * 2, [19] * 3]
    single = Chunk(chunk.rows[:1], chunk.views, chunk.reducers)
    assert all(h.shares for h in single.halves())


def test_where_nothing_is_saved_or_nothing_can_be_shared_rows_are_read_whole() -> None:
    def never() -> bool:
        raise AssertionError("asked for nothing")

    assert not any(c.shares for c in packed([row((i, *PROMPT), (1,)) for i in range(9)], shares=never))
    chunks = packed([row(PROMPT, (i, i)) for i in range(9)], shares=lambda: False)
    assert not any(c.shares for c in chunks)
    assert sum(len(c.rows) for c in chunks) == 9
