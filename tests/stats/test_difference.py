from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.difference import lead_by_chance, paired_difference, unpaired_difference

FINITE = st.floats(-100, 100)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_with_many_single_items_it_is_the_paired_t_test() -> None:
    a, b = rng().normal(size=(2, 60))
    found = paired_difference(a, b + 0.2, np.ones(60), rng=rng())
    peer = stats.ttest_rel(b + 0.2, a)
    assert found.estimate == pytest.approx(np.mean(b + 0.2 - a))
    assert found.p == pytest.approx(peer.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(peer.confidence_interval()))


def test_swapping_the_two_turns_the_sign_alone() -> None:
    a, b = rng().normal(size=(2, 40))
    there, back = (paired_difference(x, y, np.full(40, 3), rng=rng()) for x, y in ((a, b), (b, a)))
    assert there.estimate == pytest.approx(-back.estimate)
    assert there.p == pytest.approx(back.p)
    assert (there.low, there.high) == pytest.approx((-(back.high or 0), -(back.low or 0)))


def test_what_is_hard_for_both_cancels() -> None:
    hard = rng().normal(scale=50, size=40)
    a, b = rng().normal(size=(2, 40))
    found = paired_difference(hard + a, hard + b + 2, np.ones(40), rng=rng())
    assert found.p < 0.001
    assert found.se is not None
    assert found.se < 0.5


def test_items_of_a_cluster_count_as_one() -> None:
    change = np.repeat([1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 20)
    found = paired_difference(np.zeros(140), change, np.ones(140), [str(i // 20) for i in range(140)], rng=rng())
    assert (found.n_items, found.n_clusters) == (140, 7)
    assert found.p == pytest.approx(2 * 8 / 128)


def test_equal_fine_tunes_do_not_differ() -> None:
    found = paired_difference(np.ones(40), np.ones(40), np.ones(40), rng=rng())
    assert (found.estimate, found.p, found.se) == (0.0, 1.0, 0.0)


def test_one_cluster_decides_nothing() -> None:
    found = paired_difference([0.0, 0.0], [1.0, 1.0], [1, 1], ["a", "a"], rng=rng())
    assert (found.low, found.high, found.se, found.p) == (None, None, None, 1.0)


def test_other_numbers_of_items_are_refused() -> None:
    with pytest.raises(BadInputError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 2.0], [1], rng=rng())


def test_intervals_far_apart_differ_and_overlapping_ones_do_not() -> None:
    apart = unpaired_difference(0.0, (-0.1, 0.1), 1.0, (0.9, 1.1))
    near = unpaired_difference(0.0, (-0.1, 0.1), 0.1, (0.0, 0.2))
    assert apart is not None
    assert near is not None
    assert apart.p < 0.001
    assert near.p > 0.05
    assert near.low is not None
    assert near.low < 0 < (near.high or 0)


def test_without_skew_the_ends_are_those_of_two_independent_means() -> None:
    found = unpaired_difference(1.0, (1 - 1.645, 1 + 1.645), 3.0, (3 - 1.645, 3 + 1.645))
    assert found is not None
    assert found.se == pytest.approx(math.sqrt(2), rel=1e-3)
    assert found.p == pytest.approx(2 * stats.norm.sf(2 / math.sqrt(2)), rel=1e-3)


@pytest.mark.parametrize("ends", [(-math.inf, 0.1), (0.2, 0.1), (math.nan, 0.1)])
def test_an_interval_that_is_open_or_does_not_hold_its_estimate_is_not_compared(ends: tuple[float, float]) -> None:
    assert unpaired_difference(0.0, ends, 1.0, (0.9, 1.1)) is None


def test_intervals_without_width_are_not_compared() -> None:
    assert unpaired_difference(0.0, (0.0, 0.0), 1.0, (1.0, 1.0)) is None


@given(a=FINITE, b=FINITE, widths=st.tuples(*[st.floats(0.01, 50)] * 4))
def test_the_interval_leaves_out_zero_exactly_where_p_is_under_5_percent(
    a: float, b: float, widths: tuple[float, ...]
) -> None:
    found = unpaired_difference(a, (a - widths[0], a + widths[1]), b, (b - widths[2], b + widths[3]))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    if abs(found.p - 0.05) > 1e-6:
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_the_lead_by_chance_holds_95_percent_of_equal_candidates() -> None:
    draws = rng().normal(size=(20_000, 8))
    lead = draws.max(axis=1) - draws.mean(axis=1)
    assert 0.95 < np.mean(lead <= lead_by_chance(8, 1.0)) < 0.98
    assert lead_by_chance(20, 1.0) > lead_by_chance(3, 1.0)


def test_no_candidate_is_refused() -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        lead_by_chance(0, 1.0)
