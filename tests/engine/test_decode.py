from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.engine.decode import Ids, compaction, decode


class Scripted:
    """Rows that follow a script: what row r gets at step t is `script[r][t]`."""

    def __init__(self, script: list[list[int]]) -> None:
        self.view_tokens = 0
        self.script = script
        self.rows = np.arange(len(script))
        self.step = 0
        self.sizes: list[int] = []

    def logits(self) -> torch.Tensor:
        self.sizes.append(len(self.rows))
        token = [self.script[r][min(self.step, len(self.script[r]) - 1)] for r in self.rows]
        return torch.nn.functional.one_hot(torch.tensor(token), 10).float()

    def append(self, tokens: Ids) -> None:
        assert len(tokens) == len(self.rows)
        self.step += 1

    def select(self, rows: Ids) -> None:
        self.rows = self.rows[rows]


def best(logits: torch.Tensor, rows: Ids) -> Ids:
    assert len(logits) == len(rows)
    return logits.argmax(-1).numpy()


def test_rows_end_at_a_stop_token_or_at_their_limit() -> None:
    script = [[1, 2, 9, 5], [1, 1, 1, 1], [9], [8, 3, 3, 3]]
    stepper = Scripted(script)
    out = decode(
        stepper, np.zeros(4, dtype=np.int64), limits=np.array([9, 3, 9, 9]), stops=frozenset({8, 9}), pick=best
    )
    assert out == [[1, 2, 9], [1, 1, 1], [9], [8]]
    assert stepper.sizes == [4, 2, 2]


def test_without_stop_tokens_only_limits_end_a_row() -> None:
    out = decode(Scripted([[7], [6]]), np.arange(2), limits=np.array([2, 1]), stops=frozenset(), pick=best)
    assert out == [[7, 7], [6]]


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_what_a_row_gets_does_not_depend_on_which_rows_end_before_it(n_views: int, n: int, data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.integers(0, 6), min_size=n_views * n, max_size=n_views * n))
    script = [[r % 8] * end + [9] for r, end in enumerate(ends)]
    view_of = np.repeat(np.arange(n_views), n)
    out = decode(Scripted(script), view_of, limits=np.full(n_views * n, 99), stops=frozenset({9}), pick=best)
    assert out == script


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_compaction_keeps_live_rows_view_major_and_level(n_views: int, n: int, data: st.DataObject) -> None:
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=n_views * n, max_size=n_views * n)))
    if not alive.any():
        alive[0] = True
    view_of = np.repeat(np.arange(n_views), n)
    kept = compaction(view_of, alive)
    if kept is None:
        return
    assert 2 * len(kept) <= len(view_of)
    assert set(np.flatnonzero(alive)) <= set(kept)
    assert (np.diff(kept) > 0).all()
    assert len(set(np.unique(view_of[kept], return_counts=True)[1])) == 1


def test_views_that_are_done_leave_the_batch() -> None:
    kept = compaction(np.repeat(np.arange(4), 2), np.array([1, 1, 0, 0, 0, 0, 0, 0], dtype=bool))
    assert kept is not None
    assert kept.tolist() == [0, 1]


def test_a_batch_that_would_not_shrink_to_half_is_left_alone() -> None:
    assert compaction(np.repeat(np.arange(2), 3), np.array([1, 1, 0, 1, 0, 0], dtype=bool)) is None
