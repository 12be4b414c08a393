from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.paired import Estimate, gain, gain_difference, sign_flip

ITEMS = st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 300)), min_size=1, max_size=45)


def rng() -> np.random.Generator:
    return np.random.default_rng(51)


def unpack(items: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [total for total, _ in items], [tokens for _, tokens in items]


def assert_sane(found: Estimate) -> None:
    """No NaN anywhere, an interval that is ordered, a p that is a probability."""
    assert 0 < found.p <= 1 or (found.p >= 0 and found.method.endswith("t test"))
    assert math.isfinite(found.estimate)
    if found.low is None or found.high is None:
        assert found.low is None
        assert found.high is None
        assert found.method == "too few clusters"
        assert found.se is None
    else:
        assert math.isfinite(found.low)
        assert math.isfinite(found.high)
        assert found.low <= found.high
        assert found.se is not None


def test_the_estimate_weighs_tokens_and_not_items() -> None:
    found = gain([9.0, 1.0], [90, 1], rng=rng())
    assert found.estimate == pytest.approx(10 / 91)
    assert (found.n_items, found.n_clusters, found.n_tokens) == (2, 2, 91)


@given(ITEMS)
@settings(deadline=None, max_examples=60)
def test_a_gain_of_any_items_is_sane(items: list[tuple[float, int]]) -> None:
    total, tokens = unpack(items)
    found = gain(total, tokens, rng=rng())
    assert_sane(found)
    assert found.estimate == pytest.approx(sum(total) / sum(tokens), abs=1e-12)


@given(ITEMS)
@example([(0.0, 1)] * 4 + [(8.8e-147, 1)])  # so small that its square has no power
@settings(deadline=None, max_examples=40)
def test_splitting_items_inside_a_cluster_changes_nothing(items: list[tuple[float, int]]) -> None:
    total, tokens = unpack(items)
    whole = gain(total, tokens, rng=rng())
    split = gain(
        [t / 2 for t in total] * 2,
        [2 * n for n in tokens] + [0 * n + 1 for n in tokens],
        [str(i) for i in range(len(items))] * 2,
        rng=rng(),
    )
    again = gain(total, [2 * n + 1 for n in tokens], rng=rng())
    assert split.estimate == pytest.approx(again.estimate)
    assert split.p == pytest.approx(again.p)
    assert (split.n_clusters, split.n_items) == (whole.n_clusters, 2 * whole.n_items)


def test_many_clusters_of_one_length_are_the_one_sample_t_test() -> None:
    x = np.random.default_rng(52).normal(0.1, 1, 60)
    found = gain(10 * x, np.full(60, 10), rng=rng())
    theirs = stats.ttest_1samp(x, 0, alternative="greater")
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)
    assert found.method == "t over clusters; t test"


def test_few_clusters_use_bca_with_exact_sign_flips() -> None:
    x = np.random.default_rng(53).normal(0.5, 1, 12)
    found = gain(x, np.full(12, 7), rng=rng())
    assert found.method == "BCa bootstrap over clusters; exact sign flips"
    assert found.p == sign_flip(x, rng=rng()).p
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.estimate < found.high


def test_seventeen_clusters_use_random_sign_flips() -> None:
    x = np.random.default_rng(54).normal(0.5, 1, 17)
    assert gain(x, np.full(17, 7), rng=rng()).method == "BCa bootstrap over clusters; 99,999 random sign flips"


def test_two_to_four_clusters_use_t_because_a_bootstrap_would_be_far_too_short() -> None:
    found = gain([1.0, 2.0, 3.0], [10, 10, 10], rng=rng())
    expected = stats.ttest_1samp([0.1, 0.2, 0.3], 0).confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low)
    assert found.method == "t over clusters; exact sign flips"
    assert found.p == 1 / 8


def test_one_cluster_has_no_interval() -> None:
    found = gain([1.0, 2.0], [10, 10], ["a", "a"], rng=rng())
    assert (found.low, found.high, found.se, found.n_clusters) == (None, None, None, 1)
    assert found.method == "too few clusters"
    assert found.p == 0.5


@pytest.mark.parametrize("n", [2, 10, 20, 40])
def test_constant_gains_give_the_point_and_a_p_from_sign_flips(n: int) -> None:
    tokens = np.arange(1, n + 1)
    found = gain(0.3 * tokens, tokens, rng=rng())
    assert found.low == found.high == found.estimate == pytest.approx(0.3)
    assert found.se == 0.0
    assert found.method.startswith("no spread between clusters")
    assert found.p == (2.0**-n if n <= 16 else 1e-5)


def test_a_gain_of_nothing_at_all_is_zero_with_p_one() -> None:
    found = gain([0.0] * 40, [5] * 40, rng=rng())
    assert (found.estimate, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_clusters_widen_the_interval_of_items_that_vary_together() -> None:
    per_document = np.random.default_rng(55).normal(0, 1, 40)
    total, tokens = np.repeat(per_document, 5), np.full(200, 10)
    by_item = gain(total, tokens, rng=rng())
    by_document = gain(total, tokens, [str(i // 5) for i in range(200)], rng=rng())
    assert by_item.se is not None
    assert by_document.se is not None
    assert by_document.se > 2 * by_item.se


def test_a_wider_confidence_widens_the_interval() -> None:
    x = np.random.default_rng(56).normal(0, 1, 20)
    at_80 = gain(x, np.full(20, 3), confidence=0.8, rng=rng())
    at_99 = gain(x, np.full(20, 3), confidence=0.99, rng=rng())
    assert at_99.low < at_80.low < at_80.high < at_99.high  # type: ignore[operator]


def test_the_same_generator_gives_the_same_bytes() -> None:
    x = np.random.default_rng(57).normal(0, 1, 20)
    assert gain(x, np.full(20, 3), rng=rng()) == gain(x, np.full(20, 3), rng=rng())


def test_p_is_valid_under_the_null_with_few_and_with_many_clusters() -> None:
    source = np.random.default_rng(58)
    for c, runs in ((10, 1_000), (40, 2_000)):
        p = [gain(source.normal(size=c) * 30, source.integers(20, 90, c), rng=source).p for _ in range(runs)]
        assert stats.kstest(p, "uniform").pvalue > 0.001, c


@pytest.mark.parametrize(
    ("total", "tokens", "clusters", "says"),
    [
        ([], [], None, "at least 1"),
        ([1.0], [1, 2], None, "differ in length"),
        ([1.0, 2.0], [1, 2], ["a"], "differ in length"),
        ([1.0, math.nan], [1, 2], None, "total: value 1 is nan"),
        ([1.0, 2.0], [1, 0], None, "item 1 has 0 tokens"),
        ([1.0, 2.0], [1.5, 2], None, "item 0 has 1.5 tokens"),
        ([1.0, 1e80], [1, 2], None, "value 1 is"),
    ],
)
def test_unusable_items_are_refused_with_their_place(total: Any, tokens: Any, clusters: Any, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        gain(total, tokens, clusters, rng=rng())
    with pytest.raises(BadInputError, match=says):
        gain_difference([1.0, 2.0], [1, 1], None, total, tokens, clusters, rng=rng())


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_outside_the_unit_interval_is_refused(confidence: float) -> None:
    with pytest.raises(BadInputError, match="confidence"):
        gain([1.0], [1], confidence=confidence, rng=rng())


@given(ITEMS, ITEMS)
@settings(deadline=None, max_examples=40)
def test_a_difference_of_any_sets_is_sane(a: list[tuple[float, int]], b: list[tuple[float, int]]) -> None:
    (total_a, tokens_a), (total_b, tokens_b) = unpack(a), unpack(b)
    found = gain_difference(total_a, tokens_a, None, total_b, tokens_b, None, rng=rng())
    assert_sane(found)
    assert found.estimate == pytest.approx(sum(total_a) / sum(tokens_a) - sum(total_b) / sum(tokens_b), abs=1e-12)
    assert (found.n_items, found.n_tokens) == (len(a) + len(b), sum(tokens_a) + sum(tokens_b))


def test_two_sets_of_many_clusters_of_one_length_are_welchs_t_test() -> None:
    source = np.random.default_rng(59)
    a, b = source.normal(0.2, 1, 35), source.normal(0, 3, 80)
    ones_a, ones_b = np.ones(35, np.int64), np.ones(80, np.int64)
    found = gain_difference(a, ones_a, None, b, ones_b, None, rng=rng())
    theirs = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)


def test_one_cluster_on_a_side_has_no_interval_but_a_p() -> None:
    found = gain_difference([5.0], [1], None, [0.0, 0.1, 0.2], [1, 1, 1], None, rng=rng())
    assert (found.low, found.high, found.method) == (None, None, "too few clusters")
    assert found.p == 1 / 4


def test_equal_cluster_names_in_the_two_sets_are_different_clusters() -> None:
    found = gain_difference([1.0, 2.0], [1, 1], ["a", "b"], [1.0, 2.5], [1, 1], ["a", "b"], rng=rng())
    assert found.n_clusters == 4


def test_swapping_the_sets_swaps_the_interval() -> None:
    source = np.random.default_rng(60)
    a, b = source.normal(1, 1, 3), source.normal(0, 1, 9)
    one = gain_difference(a, np.ones(3), None, b, np.ones(9), None, rng=rng())
    other = gain_difference(b, np.ones(9), None, a, np.ones(3), None, rng=rng())
    assert one.low == pytest.approx(-other.high)  # type: ignore[operator]
    assert one.se == pytest.approx(other.se)


def test_constant_sets_give_the_point() -> None:
    tokens: npt.NDArray[np.int64] = np.arange(3, 9)
    found = gain_difference(0.3 * tokens, tokens, None, 0.1 * tokens, tokens, None, rng=rng())
    assert found.low == found.high == found.estimate == pytest.approx(0.2)
    assert found.p == 1 / math.comb(12, 6)
