from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.ratio import ratio_of_sums


def test_the_ends_are_where_a_t_test_of_the_difference_is_just_significant() -> None:
    rng = stream(0, "ratio")
    below = rng.normal(2, 0.5, 12)
    above = 0.6 * below + rng.normal(0, 0.4, 12)
    found = ratio_of_sums(above, below)
    assert found.estimate == pytest.approx(above.sum() / below.sum())
    for end in (found.low, found.high):
        assert stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05, abs=1e-6)


def test_a_denominator_that_may_be_zero_has_no_interval() -> None:
    rng = stream(1, "ratio")
    found = ratio_of_sums(rng.normal(1, 0.1, 10), rng.normal(0, 1, 10))
    assert (found.low, found.high) == (None, None)
    assert "not told from zero" in found.method
    assert ratio_of_sums([1.0, 1.0], [1.0, -1.0]).estimate is None


def test_one_cluster_has_no_interval_and_items_of_a_cluster_are_one() -> None:
    assert ratio_of_sums([1.0], [2.0]).method == "too few clusters"
    one = ratio_of_sums([1.0, 2.0], [2.0, 2.0], ["a", "a"])
    assert (one.estimate, one.low, one.n_items, one.n_clusters) == (0.75, None, 2, 1)
    by_cluster = ratio_of_sums([1.0, 2.0, 3.0, 1.0], [2.0, 2.0, 5.0, 2.0], ["a", "a", "b", "c"])
    assert by_cluster.n_clusters == 3
    summed = ratio_of_sums([3.0, 3.0, 1.0], [4.0, 5.0, 2.0])
    assert (by_cluster.low, by_cluster.high) == pytest.approx((summed.low, summed.high))


def test_a_constant_ratio_is_its_own_interval() -> None:
    below = np.linspace(1, 2, 8)
    found = ratio_of_sums(0.5 * below, below)
    assert (found.low, found.estimate, found.high) == pytest.approx((0.5, 0.5, 0.5))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.integers(3, 20), st.integers(0, 99))
def test_units_of_either_side_scale_the_interval(up: float, down: float, n: int, seed: int) -> None:
    rng = stream(seed, "units")
    below = rng.normal(3, 0.3, n)
    above = rng.normal(1, 0.5, n)
    plain, scaled = ratio_of_sums(above, below), ratio_of_sums(up * above, down * below)
    assert scaled.low == pytest.approx(plain.low * up / down, rel=1e-6)
    assert scaled.high == pytest.approx(plain.high * up / down, rel=1e-6)
    assert plain.low <= plain.estimate <= plain.high


@pytest.mark.parametrize(("above", "below"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0])])
def test_input_that_is_no_pairs_is_refused(above: list[float], below: list[float]) -> None:
    with pytest.raises(BadInputError, match="ratio_of_sums"):
        ratio_of_sums(above, below)
    with pytest.raises(BadInputError, match="confidence"):
        ratio_of_sums([1.0], [1.0], confidence=1.0)


@pytest.mark.parametrize("n", [5, 10, 30])
def test_intervals_of_gaussian_pairs_cover_as_promised(n: int) -> None:
    rng = stream(n, "coverage")
    covered = bounded = 0
    for _ in range(2000):
        below = rng.normal(2, 0.8, n)
        found = ratio_of_sums(0.5 * below + rng.normal(0, 0.5, n), below)
        if found.low is not None:
            bounded += 1
            covered += found.low <= 0.5 <= found.high
    assert bounded > 1800
    assert 0.935 <= covered / bounded <= 0.965
