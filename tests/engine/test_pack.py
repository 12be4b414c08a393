"""Packing: everything once, within the budget; halving: nothing lost."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.views import FINETUNED, View, rotations
from dlm_sway.engine.pack import Chunk, Need, pack, split
from dlm_sway.engine.rows import Row
from dlm_sway.engine.widths import ROWS, VIEW_ROWS, padded, rows_for

NULLS = rotations(seed=0, n_draws=9)


def row(length: int, mark: int = 0) -> Row:
    return Row(np.full(length, mark), 0, np.arange(length))


def packed(
    rows: list[Row], views: tuple[View, ...], *, batch_tokens: int, limit: int = 99, stacks: bool = True
) -> list[Chunk]:
    needs = [Need(r, dict.fromkeys(views), {"kl"}) for r in rows]
    return list(pack(needs, batch_tokens=batch_tokens, views_per_pass=lambda _: limit, stacks=stacks))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=15),
    n_views=st.integers(0, 9),
    batch_tokens=st.integers(1, 600),
    limit=st.integers(1, 12),
    stacks=st.booleans(),
)
def test_every_row_meets_every_view_once_within_the_budget(
    lengths: list[int], n_views: int, batch_tokens: int, limit: int, stacks: bool
) -> None:
    rows, views = [row(n, i) for i, n in enumerate(lengths)], NULLS[:n_views]
    chunks = packed(rows, views, batch_tokens=batch_tokens, limit=limit, stacks=stacks)
    met = Counter((r.key, v) for c in chunks for r in c.rows for v in (c.views or (None,)))
    assert met == Counter((r.key, v) for r in rows for v in (views or (None,)))
    for chunk in chunks:
        assert len(chunk.views) <= limit
        tokens = chunk.view_tokens if stacks else chunk.view_tokens // (1 + len(chunk.views))
        assert tokens <= batch_tokens or (len(chunk.rows) == 1 and (len(chunk.views) <= 1 or not stacks))


def test_rows_of_like_length_go_together() -> None:
    chunks = packed([row(n) for n in (30, 3, 31, 4)], (FINETUNED,), batch_tokens=128)
    assert [[len(r.ids) for r in c.rows] for c in chunks] == [[3, 4], [30, 31]]


def test_rows_of_other_widths_stay_apart_whatever_the_budget() -> None:
    chunks = packed([row(n) for n in (4, 5, 6, 64, 65)], (FINETUNED,), batch_tokens=10**6)
    assert [[len(r.ids) for r in c.rows] for c in chunks] == [[4], [5, 6], [64], [65]]


@given(n=st.integers(1, 10**5))
def test_a_width_is_little_more_than_the_row(n: int) -> None:
    assert n <= padded(n) < n + max(4, n / 16)
    assert padded(padded(n)) == padded(n) <= padded(n + 1)


@given(n_views=st.integers(1, 50), width=st.integers(1, 300))
def test_a_pass_has_enough_rows_for_every_product(n_views: int, width: int) -> None:
    n = rows_for(n_views, width)
    assert n * width >= VIEW_ROWS
    assert n_views * n * width >= ROWS


def test_views_with_a_first_factor_of_their_own_never_share_a_pass_with_others() -> None:
    gaussian = tuple(View("gaussian", seed=1, draw=i) for i in range(3))
    chunks = packed([row(8)], (NULLS[0], gaussian[0], NULLS[1], *gaussian[1:]), batch_tokens=10**6)
    assert [c.views for c in chunks] == [NULLS[:2], gaussian]


def test_views_that_cannot_be_held_at_once_are_cut_into_like_parts_outside_the_rows() -> None:
    chunks = packed([row(8, i) for i in range(4)], NULLS, batch_tokens=64, limit=4)
    sizes = [len(c.views) for c in chunks]
    assert set(sizes) == {3}  # not 4, 4, 1
    assert [c.views for c in chunks] == sorted((c.views for c in chunks), key=lambda v: v[0].draw)


def test_rows_that_need_other_views_or_reducers_are_apart() -> None:
    needs = [
        Need(row(4, 0), dict.fromkeys(NULLS), {"kl"}),
        Need(row(4, 1), dict.fromkeys(NULLS), {"kl", "gain"}),
        Need(row(4, 2), dict.fromkeys(NULLS[:1]), {"kl"}),
    ]
    chunks = list(pack(needs, batch_tokens=10**6, views_per_pass=len, stacks=True))
    assert len(chunks) == 3


@settings(deadline=None)
@given(n_rows=st.integers(1, 9), n_views=st.integers(0, 9))
def test_halving_ends_at_one_row_under_one_view_and_loses_nothing(n_rows: int, n_views: int) -> None:
    waiting = [Chunk(tuple(row(5, i) for i in range(n_rows)), NULLS[:n_views], ("kl",))]
    done: list[Chunk] = []
    while waiting:
        chunk = waiting.pop()
        parts = chunk.halves()
        assert all(p.view_tokens < chunk.view_tokens for p in parts)
        waiting += parts
        done += [] if parts else [chunk]
    assert all(len(c.rows) == 1 and len(c.views) <= 1 for c in done)
    assert len(done) == n_rows * max(1, n_views)


def test_splitting_keeps_the_order_and_cuts_evenly() -> None:
    assert [len(part) for part in split(NULLS, 4)] == [3, 3, 3]
    assert sum(split(NULLS, 2), ()) == NULLS
    assert list(split((), 4)) == [()]
