from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.crossed import N_PERMUTATIONS, own_against_others


def rng() -> np.random.Generator:
    return stream(0, "crossed")


def test_own_partners_that_give_most_have_the_smallest_p() -> None:
    table = stream(1, "table").normal(size=(5, 5)) + 10 * np.eye(5)
    found = own_against_others([table], rng=rng())
    assert (found.p, found.exact, found.n_permutations) == (1 / 120, True, 120)
    assert found.own == pytest.approx(np.trace(table))
    assert found.own - found.others == pytest.approx(found.difference.sum())
    assert found.difference[2] == pytest.approx(table[2, 2] - table[[0, 1, 3, 4], 2].mean())


def test_effects_of_rows_and_columns_cancel() -> None:
    plain = stream(2, "table").normal(size=(5, 5))
    effects = 50 * np.arange(5.0)[:, None] + 7 * np.arange(5.0)[None]
    assert own_against_others([plain + effects], rng=rng()).p == own_against_others([plain], rng=rng()).p


def test_rows_stay_in_their_block() -> None:
    blocks = [np.eye(2), np.eye(3)]
    found = own_against_others(blocks, rng=rng())
    assert (found.p, found.n_permutations) == (1 / 12, 12)
    assert found.difference.size == 5


def test_many_permutations_are_drawn_and_agree_with_the_list() -> None:
    table = stream(3, "table").normal(size=(7, 7)) + 0.5 * np.eye(7)
    listed = own_against_others([table], rng=rng())
    two = own_against_others([table, table], rng=rng())
    assert listed.exact
    assert (two.exact, two.n_permutations) == (False, N_PERMUTATIONS)
    assert two.p < listed.p
    assert own_against_others([table, table], rng=rng()).p == two.p


def test_a_constant_table_has_p_1_and_few_things_cannot_decide() -> None:
    assert own_against_others([np.ones((4, 4))], rng=rng()).p == 1.0
    assert own_against_others([np.eye(3)], rng=rng()).p == pytest.approx(1 / 6)
    assert 1 / math.factorial(4) < 0.05 < 1 / math.factorial(3)


@pytest.mark.parametrize("blocks", [[], [np.ones((1, 1))], [np.ones((2, 3))], [np.array([[1.0, np.nan], [0.0, 1.0]])]])
def test_tables_that_are_not_square_or_not_finite_are_refused(blocks: list[np.ndarray]) -> None:
    with pytest.raises(BadInputError, match="own_against_others"):
        own_against_others(blocks, rng=rng())


def test_p_is_uniform_where_the_partner_does_not_matter() -> None:
    draw = stream(4, "uniform")
    p = []
    for _ in range(400):
        effects = draw.normal(size=(6, 1)) * 3 + draw.normal(size=(1, 6)) * 3
        p.append(own_against_others([effects + draw.normal(size=(6, 6))], rng=draw).p)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.08
