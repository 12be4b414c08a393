from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dlm_sway.stats import _labels
from dlm_sway.stats._labels import permute_labels
from dlm_sway.stats._ratio import ClusterSums, sums_by_cluster


def cluster_sums(total: object, tokens: object) -> ClusterSums:
    return sums_by_cluster(np.asarray(total, float), np.asarray(tokens), None, where="test")


def normal(rng: np.random.Generator, c: int, *, sd: float = 1.0) -> ClusterSums:
    tokens = rng.integers(20, 90, c)
    return cluster_sums(sd * rng.normal(size=c) * tokens, tokens)


def test_all_labellings_are_listed_when_there_are_few() -> None:
    test = permute_labels(
        cluster_sums([9, 8, 7], [1, 1, 1]), cluster_sums([1, 2, 3, 4], [1] * 4), rng=np.random.default_rng(0)
    )
    assert (test.p, test.exact, test.n_labellings) == (1 / 35, True, 35)


def test_it_agrees_with_scipys_permutation_of_the_welch_statistic() -> None:
    source = np.random.default_rng(61)
    a, b = source.normal(0.8, 1, 5), source.normal(0, 2, 8)
    mine = permute_labels(cluster_sums(a, [1] * 5), cluster_sums(b, [1] * 8), rng=source)
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: stats.ttest_ind(x, y, axis=axis, equal_var=False).statistic,
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert mine.exact
    assert mine.p == pytest.approx(theirs.pvalue)


def test_p_is_uniform_when_clusters_are_exchangeable() -> None:
    source = np.random.default_rng(62)
    p = [permute_labels(normal(source, 4), normal(source, 6), rng=source).p for _ in range(2_000)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_unequal_spread_alone_is_no_evidence() -> None:
    # Few clusters of large spread against many of small: the unstudentised test rejects this null
    # 3 times as often as it should.
    source = np.random.default_rng(63)
    p = np.array([permute_labels(normal(source, 8, sd=4), normal(source, 24), rng=source).p for _ in range(200)])
    assert stats.binomtest(int(np.sum(p <= 0.1)), 200, 0.1, alternative="greater").pvalue > 0.001


def test_the_roles_are_symmetric() -> None:
    source = np.random.default_rng(64)
    small, large = normal(source, 3), normal(source, 7)
    one = permute_labels(small, large, rng=source).p
    other = permute_labels(large, small, rng=source).p
    # Every labelling lies on one side or the other; the observed one on both.
    assert one + other == pytest.approx(1 + 1 / 120)


def test_random_labellings_are_close_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(65)
    a, b = normal(source, 6), normal(source, 9)
    exact = permute_labels(a, b, rng=source)
    monkeypatch.setattr(_labels, "MAX_EXACT", 10)
    sampled = permute_labels(a, b, rng=source)
    assert (exact.exact, sampled.exact, sampled.n_labellings) == (True, False, 9_999)
    assert sampled.p == pytest.approx(exact.p, abs=0.025)


def test_equal_constant_sets_give_p_one_and_unequal_ones_the_smallest() -> None:
    source = np.random.default_rng(66)
    tokens = np.array([3, 5, 7, 11])
    same = cluster_sums(0.1 * tokens, tokens)
    assert permute_labels(same, cluster_sums(0.1 * tokens[:3], tokens[:3]), rng=source).p == 1.0
    assert permute_labels(cluster_sums(0.3 * tokens, tokens), same, rng=source).p == 1 / 70
