from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.ranks import rank_test

FLOATS = st.floats(-1e6, 1e6)


def test_the_most_extreme_of_twenty_has_rank_one_and_p_of_one_in_twenty() -> None:
    result = rank_test(100.0, np.arange(1.0, 20.0))
    assert (result.rank, result.n_draws, result.p) == (1, 19, 0.05)
    assert result.null_median == 10.0
    assert result.ratio == 10.0


def test_the_least_extreme_has_the_last_rank_and_p_of_one() -> None:
    result = rank_test(0.5, np.arange(1.0, 20.0))
    assert (result.rank, result.p) == (20, 1.0)


def test_ties_count_against_us() -> None:
    assert rank_test(3.0, [1.0, 2.0, 3.0]).p == 2 / 4
    assert rank_test(1.0, [1.0] * 9).p == 1.0


def test_less_looks_at_the_other_tail() -> None:
    assert rank_test(0.5, np.arange(1.0, 20.0), alternative="less").p == 0.05
    assert rank_test(1.0, [1.0, 2.0, 3.0], alternative="less").rank == 2


@given(FLOATS, st.lists(FLOATS, min_size=1, max_size=50))
@settings(deadline=None)
def test_less_mirrors_greater(real: float, nulls: list[float]) -> None:
    mirrored = rank_test(-real, [-x for x in nulls], alternative="less", scale="linear")
    assert mirrored.p == rank_test(real, nulls, scale="linear").p


@given(st.floats(0.01, 100), st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
@settings(deadline=None)
def test_p_ignores_any_increasing_change_of_scale_and_the_order_of_draws(real: float, nulls: list[float]) -> None:
    p = rank_test(real, nulls).p
    assert rank_test(4 * real, [4 * x for x in reversed(nulls)]).p == p
    assert 1 / (len(nulls) + 1) <= p <= 1


def test_p_is_exactly_uniform_over_the_ranks_under_exchangeability() -> None:
    m, runs = 19, 8_000
    values = np.random.default_rng(11).lognormal(0, 3, (runs, m + 1))
    ranks = [rank_test(row[0], row[1:]).rank for row in values]
    observed = np.bincount(ranks, minlength=m + 2)[1:]
    assert stats.chisquare(observed).pvalue > 0.001


def test_p_never_errs_more_than_its_level_with_heavy_ties() -> None:
    values = np.random.default_rng(12).integers(0, 3, (4_000, 20)).astype(float)
    p = np.array([rank_test(row[0], row[1:], scale="linear").p for row in values])
    assert all(np.mean(p <= level) <= level for level in (0.05, 0.1, 0.25, 0.5))


def test_z_is_the_t_corrected_score_on_the_log_scale() -> None:
    nulls = np.random.default_rng(13).lognormal(0, 0.4, 39)
    x, logs = math.log(3.0), np.log(nulls)
    expected = (x - logs.mean()) / (logs.std(ddof=1) * math.sqrt(1 + 1 / 39))
    assert rank_test(3.0, nulls).z == pytest.approx(expected)


def test_z_on_the_linear_scale_is_a_t_variable_under_the_null() -> None:
    values = np.random.default_rng(14).normal(5, 2, (3_000, 40))
    z = [rank_test(row[0], row[1:], scale="linear").z for row in values]
    assert stats.kstest(z, stats.t(38).cdf).pvalue > 0.001


def test_z_is_withheld_below_39_draws() -> None:
    nulls = np.arange(1.0, 40.0)
    assert rank_test(50.0, nulls[:38]).z is None
    assert rank_test(50.0, nulls).z is not None


def test_z_is_withheld_where_it_would_mislead() -> None:
    assert rank_test(2.0, [0.1] * 39).z is None
    assert rank_test(-1.0, np.arange(1.0, 40.0)).z is None
    assert rank_test(1.0, np.arange(0.0, 39.0)).z is None
    assert rank_test(1.0, np.arange(0.0, 39.0), scale="linear").z is not None


@pytest.mark.parametrize("nulls", [[-3.0, -2.0, -1.0], [0.0, 0.0, 5.0], [1e-310] * 3])
def test_no_ratio_to_a_median_that_is_not_positive(nulls: list[float]) -> None:
    assert rank_test(1.0, nulls, scale="linear").ratio is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(bad: float) -> None:
    with pytest.raises(BadInputError, match="nulls: value 1 is"):
        rank_test(1.0, [1.0, bad])
    with pytest.raises(BadInputError, match="real"):
        rank_test(bad, [1.0])


def test_no_nulls_and_unknown_words_are_refused() -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        rank_test(1.0, [])
    with pytest.raises(BadInputError, match="one dimension"):
        rank_test(1.0, [[1.0]])
    with pytest.raises(BadInputError, match="two-sided"):
        rank_test(1.0, [1.0], alternative="two-sided")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="cubic"):
        rank_test(1.0, [1.0], scale="cubic")  # type: ignore[arg-type]


def test_the_result_keeps_its_own_copy_of_the_draws() -> None:
    nulls = np.array([1.0, 2.0])
    result = rank_test(3.0, nulls)
    nulls[0] = 99.0
    assert result.nulls.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        result.nulls[0] = 5.0
