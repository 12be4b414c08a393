from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.proportions import clopper_pearson, newcombe_paired, shared_counts

COUNTS = st.integers(0, 40)


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(deadline=None)
def test_clopper_pearson_agrees_with_scipy(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    theirs = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    mine = clopper_pearson(k, n, confidence=confidence)
    assert mine.estimate == k / n
    assert mine.low == pytest.approx(theirs.low, abs=1e-9)
    assert mine.high == pytest.approx(theirs.high, abs=1e-9)


def test_no_trials_leave_every_rate_possible() -> None:
    none = clopper_pearson(0, 0)
    assert (none.estimate, none.low, none.high, none.n) == (None, 0.0, 1.0, 0)
    pairs = newcombe_paired(0, 0, 0, 0)
    assert (pairs.estimate, pairs.low, pairs.high, pairs.n) == (None, -1.0, 1.0, 0)


def test_newcombe_gives_the_published_interval() -> None:
    # Newcombe 1998, table III, method 10, data 36, 12, 2, 0: 0.0569 to 0.3404.
    found = newcombe_paired(36, 12, 2, 0)
    assert found.estimate == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0569, abs=6e-5)
    assert found.high == pytest.approx(0.3404, abs=6e-5)


def test_newcombe_without_correlation_joins_two_wilson_intervals() -> None:
    found = newcombe_paired(12, 18, 8, 12)
    first = stats.binomtest(30, 50).proportion_ci(method="wilson")
    second = stats.binomtest(20, 50).proportion_ci(method="wilson")
    assert found.low == pytest.approx(0.2 - math.hypot(0.6 - first.low, second.high - 0.4))
    assert found.high == pytest.approx(0.2 + math.hypot(first.high - 0.6, 0.4 - second.low))


def test_newcombe_shortens_with_positive_correlation() -> None:
    alone, together = newcombe_paired(12, 18, 8, 12), newcombe_paired(19, 11, 1, 19)
    assert together.estimate == alone.estimate
    assert together.high - together.low < alone.high - alone.low


@given(COUNTS, COUNTS, COUNTS, COUNTS)
@settings(deadline=None)
def test_newcombe_is_ordered_bounded_and_mirrors_when_the_two_are_swapped(a: int, b: int, c: int, d: int) -> None:
    found, swapped = newcombe_paired(a, b, c, d), newcombe_paired(a, c, b, d)
    assert -1 <= found.low <= found.high <= 1
    assert found.low == pytest.approx(-swapped.high)
    if found.estimate is not None:
        assert found.low - 1e-12 <= found.estimate <= found.high + 1e-12


def test_newcombe_covers_close_to_its_level_at_rates_near_one() -> None:
    rng = np.random.default_rng(101)
    runs, share = 2_000, (0.88, 0.07, 0.02, 0.03)
    covered = 0
    for a, b, c, d in rng.multinomial(60, share, runs):
        found = newcombe_paired(int(a), int(b), int(c), int(d))
        covered += found.low <= 0.05 <= found.high
    assert 0.935 <= covered / runs <= 0.99


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(BadInputError, match="5 successes in 4 trials"):
        clopper_pearson(5, 4)
    with pytest.raises(BadInputError, match="only_second"):
        newcombe_paired(1, 2, -1, 3)
    with pytest.raises(BadInputError, match="neither"):
        newcombe_paired(1, 2, 1, math.nan)
    with pytest.raises(BadInputError, match="successes"):
        clopper_pearson(-0.5, 4)
    with pytest.raises(BadInputError, match="trials"):
        clopper_pearson(1, math.pi)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="2 items and 1 clusters"):
        shared_counts("ab", ["x"])
    with pytest.raises(BadInputError, match="confidence"):
        newcombe_paired(1, 2, 1, 3, confidence=95)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 6)), max_size=40))
@settings(deadline=None)
def test_clusters_are_counted_once_whatever_their_size(items: list[tuple[str, int]]) -> None:
    counts = shared_counts([kind for kind, _ in items], [str(cluster) for _, cluster in items])
    assert sum(counts.values()) == pytest.approx(len({cluster for _, cluster in items}), abs=1e-12)


def test_a_cluster_is_shared_out_among_its_items_and_alone_an_item_is_whole() -> None:
    assert shared_counts([True, False, False, True], ["x", "x", "x", "y"]) == {True: 4 / 3, False: 2 / 3}
    assert shared_counts([True, True, False], ["x", "y", "z"]) == {True: 2.0, False: 1.0}
    assert shared_counts([True] * 3, ["x"] * 3) == {True: 1.0}
    assert shared_counts([], []) == {}


@pytest.mark.parametrize("n", [5, 10, 30, 60])
@pytest.mark.parametrize("mean", [0.02, 0.1, 0.5])
def test_clopper_pearson_keeps_its_level_whatever_the_share_of_a_cluster(n: int, mean: float) -> None:
    """Exact, over clusters whose shares have two values; the missed sides of the interval are added up for each."""
    confidence, tail = 0.90, 0.05
    ones = np.arange(n + 1)
    for low in np.linspace(0, mean, 6)[:-1]:
        for high in np.linspace(mean, 1, 7)[1:]:
            chance = stats.binom.pmf(ones, n, (mean - low) / (high - low))
            sums = np.clip(low * (n - ones) + high * ones, 0, n)
            found = [clopper_pearson(float(s), n, confidence=confidence) for s in sums]
            assert chance[[f.high < mean - 1e-12 for f in found]].sum() <= tail
            assert chance[[f.low > mean + 1e-12 for f in found]].sum() <= tail
