from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.multiplicity import benjamini_hochberg, max_t
from dlm_sway.stats.ranks import rank_test

F64 = npt.NDArray[np.float64]
TABLES = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(2, 12)), elements=st.integers(-5, 5).map(float)
)


def dependent_table(rng: np.random.Generator, k: int, m: int) -> F64:
    """Rows that share a factor, on unlike scales and with unlike tails."""
    shared = rng.normal(size=m + 1)
    rows = 0.6 * shared + rng.normal(size=(k, m + 1))
    rows[::3] = np.exp(2 * rows[::3])
    rows[1::3] = np.round(rows[1::3])
    return np.asarray(rows * 10.0 ** rng.integers(-3, 3, (k, 1)))


def naive_step_down(t: F64) -> F64:
    """The definition, row by row: the maximum over the rows not yet tested, draw by draw."""
    order = sorted(range(len(t)), key=lambda row: -t[row, 0])
    p, worst = np.zeros(len(t)), 0.0
    for step, row in enumerate(order):
        reached = sum(max(t[r, j] for r in order[step:]) >= t[row, 0] for j in range(t.shape[1]))
        worst = max(worst, reached / t.shape[1])
        p[row] = worst
    return p


def test_family_wise_error_is_held_under_the_global_null_with_dependent_rows() -> None:
    rng = np.random.default_rng(21)
    runs = 3_000
    rejected = sum(bool((max_t(dependent_table(rng, 12, 19)).p_adjusted <= 0.05).any()) for _ in range(runs))
    assert stats.binomtest(rejected, runs, 0.05, alternative="greater").pvalue > 0.001


def test_the_smallest_adjusted_p_is_exactly_uniform_under_the_global_null() -> None:
    rng = np.random.default_rng(22)
    smallest = [max_t(rng.normal(size=(5, 20)) * [[1], [2], [3], [4], [5]]).p_adjusted.min() for _ in range(4_000)]
    observed = np.bincount(np.rint(np.array(smallest) * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(observed).pvalue > 0.001


def test_one_strong_row_leaves_the_error_of_the_others_controlled() -> None:
    rng = np.random.default_rng(23)
    runs, wrong = 2_000, 0
    for _ in range(runs):
        table = dependent_table(rng, 8, 19)
        table[0, 0] = np.abs(table[0]).max() * 10
        wrong += bool((max_t(table).p_adjusted[1:] <= 0.05).any())
    assert stats.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 0.001


def test_nineteen_draws_suffice_for_twelve_probes_where_benjamini_hochberg_cannot_reject() -> None:
    rng = np.random.default_rng(24)
    runs, found, found_bh = 300, 0, 0
    for _ in range(runs):
        table = rng.normal(size=(12, 20)) + 0.6 * rng.normal(size=20)
        table[:4, 0] += 8
        result = max_t(table)
        found += bool((result.p_adjusted[:4] <= 0.05).all())
        found_bh += bool((benjamini_hochberg(result.p_raw)[:1] <= 0.05).any())
    assert found / runs > 0.9
    # Four rows at 1/20 each: BH needs 12 / 4 * 1/20 = 0.15.
    assert found_bh == 0


@given(TABLES)
@settings(deadline=None)
def test_it_agrees_with_the_definition_and_never_falls_below_the_raw_p(table: F64) -> None:
    result = max_t(table)
    assert np.allclose(result.p_adjusted, naive_step_down(result.standardised))
    assert np.all(result.p_adjusted >= result.p_raw - 1e-12)
    assert np.all((result.p_raw > 0) & (result.p_adjusted <= 1))


@given(TABLES)
@settings(deadline=None)
def test_raw_p_is_the_rank_p_of_each_row(table: F64) -> None:
    for row, p in zip(table, max_t(table).p_raw, strict=True):
        assert rank_test(row[0], row[1:], scale="linear").p == pytest.approx(p)


@given(TABLES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_rows_and_of_draws_does_not_matter(table: F64, random: object) -> None:
    k, columns = table.shape
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    rows = rng.permutation(k)
    draws = np.concatenate([[0], 1 + rng.permutation(columns - 1)])
    shuffled = max_t(table[rows][:, draws])
    assert np.allclose(shuffled.p_adjusted, max_t(table).p_adjusted[rows])


def test_location_and_scale_of_a_row_do_not_matter() -> None:
    table = np.random.default_rng(25).normal(size=(4, 20))
    moved = table * [[1], [1e4], [1e-4], [3]] + [[0], [5], [-2], [1e3]]
    assert np.allclose(max_t(moved).p_adjusted, max_t(table).p_adjusted)


def test_less_mirrors_greater() -> None:
    table = np.random.default_rng(26).normal(size=(4, 20))
    assert np.array_equal(max_t(-table, alternative="less").p_adjusted, max_t(table).p_adjusted)


def test_one_row_keeps_its_raw_p() -> None:
    result = max_t([[9.0, 1.0, 2.0, 3.0]])
    assert result.p_adjusted.tolist() == result.p_raw.tolist() == [0.25]


def test_a_row_with_mad_zero_is_scaled_by_its_mean_deviation() -> None:
    result = max_t([[6.0] + [0.0] * 19])
    assert result.standardised[0, 0] == pytest.approx(6.0 / (6.0 / 20))
    assert result.p_adjusted[0] == 0.05


def test_a_constant_row_is_never_significant_and_costs_the_others_nothing() -> None:
    table = np.random.default_rng(27).normal(size=(2, 20))
    table[0, 0] = 50.0
    with_constant = max_t(np.vstack([table, np.full(20, 3.0)]))
    assert with_constant.p_adjusted[2] == 1.0
    assert with_constant.p_adjusted[0] == max_t(table).p_adjusted[0] == 0.05


def test_mostly_tied_rows_hold_the_error() -> None:
    rng = np.random.default_rng(28)
    runs = 2_000
    rejected = sum(
        bool((max_t((rng.random((6, 20)) < 0.15).astype(float)).p_adjusted <= 0.05).any()) for _ in range(runs)
    )
    assert rejected / runs <= 0.05


def test_rows_that_are_not_finite_are_refused_by_index() -> None:
    table = np.zeros((4, 5))
    table[1, 2] = math.nan
    table[3, 0] = math.inf
    with pytest.raises(BadInputError, match="infinities: 1, 3"):
        max_t(table)


def test_shapes_without_a_null_are_refused_and_no_rows_give_no_results() -> None:
    with pytest.raises(BadInputError, match="no null draws"):
        max_t(np.zeros((3, 1)))
    with pytest.raises(BadInputError, match="rows and columns"):
        max_t(np.zeros(3))
    assert max_t(np.zeros((0, 5))).p_adjusted.size == 0


def test_values_too_far_apart_are_refused_and_not_turned_into_infinities() -> None:
    with pytest.raises(BadInputError, match="too far apart"):
        max_t([[1e75, 0.0, 1e-300, 2e-300, 3e-300, 4e-300]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_benjamini_hochberg_agrees_with_scipy(p: list[float]) -> None:
    assert np.allclose(benjamini_hochberg(p), stats.false_discovery_control(p))


def test_benjamini_hochberg_of_nothing_is_nothing() -> None:
    assert benjamini_hochberg([]).size == 0


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_benjamini_hochberg_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(BadInputError, match="value 1"):
        benjamini_hochberg([0.5, bad])
