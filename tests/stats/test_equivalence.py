from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.equivalence import equivalence, non_inferiority


def rng() -> np.random.Generator:
    return np.random.default_rng(71)


def losses(mean: float, c: int, *, sd: float = 0.1, seed: int = 72) -> np.ndarray[Any, np.dtype[np.float64]]:
    """C losses a token, symmetric, with exactly this mean and standard deviation."""
    half = np.random.default_rng(seed).normal(size=c // 2)
    x = np.concatenate([half, -half, np.zeros(c % 2)])
    return np.asarray(mean + sd * x / x.std(ddof=1))


def test_a_small_loss_in_a_narrow_interval_is_within() -> None:
    found = non_inferiority(losses(0.0, 100) * 10, np.full(100, 10), margin=0.05, rng=rng())
    assert found.decision == "within"
    assert found.upper == pytest.approx(stats.t.ppf(0.95, 99) * 0.01)
    assert found.lower == pytest.approx(-found.upper)
    assert found.n_to_decide is not None
    assert found.n_to_decide <= 100


def test_a_large_loss_is_outside_and_a_loss_near_the_margin_undecided() -> None:
    assert non_inferiority(losses(0.2, 40), np.ones(40), margin=0.05, rng=rng()).decision == "outside"
    assert non_inferiority(losses(0.045, 40), np.ones(40), margin=0.05, rng=rng()).decision == "undecided"


@given(st.floats(-0.3, 0.3), st.integers(2, 60), st.floats(0.0, 0.5))
@settings(deadline=None, max_examples=60)
def test_the_decision_follows_from_the_bounds(mean: float, c: int, margin: float) -> None:
    found = non_inferiority(losses(mean, c), np.ones(c), margin=margin, rng=rng())
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower <= found.estimate <= found.upper
    assert (found.decision == "within") == (found.upper < margin)
    assert (found.decision == "outside") == (found.lower > margin)
    if found.n_to_decide is not None:
        assert (found.n_to_decide > c) == (found.decision == "undecided")


@pytest.mark.parametrize("c", [5, 12, 20, 29, 60])
def test_one_text_that_improved_much_leaves_a_harmless_result_decided(c: int) -> None:
    loss = np.random.default_rng(0).normal(0, 0.002, c)
    loss[0] = -0.15
    for seed in range(5):
        found = non_inferiority(64 * loss, np.full(c, 64), margin=0.05, rng=np.random.default_rng(seed))
        assert found.decision == "within"
        assert 2 <= found.n_to_decide <= c


@pytest.mark.parametrize("mean", [0.04, 0.03, 0.06, 0.07])
def test_with_the_number_asked_for_the_bound_decides_and_with_one_fewer_it_does_not(mean: float) -> None:
    first = non_inferiority(losses(mean, 32), np.ones(32), margin=0.05, rng=rng())
    needed = first.n_to_decide
    assert first.decision == "undecided"
    assert needed is not None
    # Same estimate and spread, per cluster with ddof 1, at another number of clusters.
    enough = non_inferiority(losses(mean, needed), np.ones(needed), margin=0.05, rng=rng())
    short = non_inferiority(losses(mean, needed - 1), np.ones(needed - 1), margin=0.05, rng=rng())
    assert enough.decision in {"within", "outside"}
    assert short.decision == "undecided"


def test_at_the_margin_no_sample_would_decide() -> None:
    found = non_inferiority([0.0, 0.1] * 20, np.ones(40), margin=0.05, rng=rng())
    assert (found.decision, found.n_to_decide) == ("undecided", None)


@pytest.mark.parametrize("beyond", [1e-9, 1e-4])
def test_a_hopeless_number_is_not_named(beyond: float) -> None:
    assert non_inferiority(losses(0.05 + beyond, 40), np.ones(40), margin=0.05, rng=rng()).n_to_decide is None


def test_one_cluster_is_undecided() -> None:
    found = non_inferiority([1.0, 1.0], [10, 10], ["a", "a"], margin=0.05, rng=rng())
    assert (found.upper, found.lower, found.decision, found.n_to_decide) == (None, None, "undecided", None)
    assert found.method == "too few clusters"
    given_z = non_inferiority([1.0], [10], margin=0.05, critical=2.0, rng=rng())
    assert (given_z.upper, given_z.decision) == (None, "undecided")


def test_an_adapter_that_changes_nothing_does_no_harm() -> None:
    found = non_inferiority(np.zeros(8), np.full(8, 30), margin=0.05, rng=rng())
    assert (found.upper, found.lower, found.decision, found.n_to_decide) == (0.0, 0.0, "within", 2)
    assert found.method == "no spread between clusters"


def test_a_constant_loss_at_the_margin_is_not_within() -> None:
    found = non_inferiority(np.full(8, 0.5), np.ones(8), margin=0.5, rng=rng())
    assert (found.decision, found.n_to_decide) == ("undecided", None)


def test_a_given_critical_value_replaces_quantile_and_bootstrap() -> None:
    for c in (8, 40):
        found = non_inferiority(losses(0.01, c), np.ones(c), margin=0.05, critical=2.5, rng=rng())
        assert found.upper == pytest.approx(0.01 + 2.5 * 0.1 / math.sqrt(c))
        assert found.method == "given critical value over clusters, widened for skewness"
    needed = non_inferiority(losses(0.01, 40), np.ones(40), margin=0.05, critical=2.6, rng=rng()).n_to_decide
    assert needed == math.ceil((2.6 * 0.1 / 0.04) ** 2)


def test_a_bound_is_widened_on_the_side_where_losses_are_skewed_and_on_no_other() -> None:
    rare = np.concatenate([np.zeros(36), np.full(4, 1.0)])
    harm = non_inferiority(rare, np.ones(40), margin=0.5, rng=rng())
    relief = non_inferiority(-rare, np.ones(40), margin=0.5, rng=rng())
    se, q = rare.std(ddof=1) / math.sqrt(40), stats.t.ppf(0.95, 39)
    reach = q * se
    # Hall's transformation, forwards: at the bound the studentised loss, freed of its skewness, is at the quantile.
    assert harm.upper is not None
    t, k = (0.1 - harm.upper) / se, stats.skew(rare) / math.sqrt(40)
    assert t + k * t**2 / 3 + k**2 * t**3 / 27 + k / 6 == pytest.approx(-q)
    assert harm.upper > 0.1 + 1.3 * reach
    assert harm.lower == pytest.approx(0.1 - reach)
    assert relief.lower == pytest.approx(-harm.upper)
    assert relief.upper == pytest.approx(-0.1 + reach)
    assert harm.method == "t over clusters, widened for skewness"


def test_skewed_losses_ask_for_more_clusters() -> None:
    rare = np.concatenate([np.zeros(36), np.full(4, 1.0)])
    x = losses(0.1, 40, sd=float(rare.std(ddof=1)))
    skewed = non_inferiority(rare, np.ones(40), margin=0.12, rng=rng()).n_to_decide
    symmetric = non_inferiority(x, np.ones(40), margin=0.12, rng=rng()).n_to_decide
    assert skewed is not None
    assert symmetric is not None
    assert 40 < symmetric < skewed < 2 * symmetric


def test_few_clusters_use_the_bootstrap() -> None:
    found = non_inferiority(losses(0.0, 12), np.ones(12), margin=0.05, rng=rng())
    assert found.method == "BCa bootstrap over clusters"


def test_the_wrong_answer_within_has_the_promised_probability_at_the_margin() -> None:
    source = np.random.default_rng(73)
    runs = 2_000
    wrong = sum(
        non_inferiority(source.normal(0.05, 0.2, 40), np.ones(40), margin=0.05, rng=source).decision == "within"
        for _ in range(runs)
    )
    assert stats.binomtest(wrong, runs, 0.05).pvalue > 0.001


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_an_impossible_margin_is_refused(margin: float) -> None:
    with pytest.raises(BadInputError, match="margin"):
        non_inferiority([0.1], [1], margin=margin, rng=rng())
    with pytest.raises(BadInputError, match="margin"):
        equivalence([0.1], [1], margin=margin)


def test_other_impossible_options_are_refused() -> None:
    with pytest.raises(BadInputError, match="alpha"):
        non_inferiority([0.1], [1], margin=0.1, alpha=1.0, rng=rng())
    with pytest.raises(BadInputError, match="critical"):
        non_inferiority([0.1], [1], margin=0.1, critical=0.0, rng=rng())
    with pytest.raises(BadInputError, match="value 0 is nan"):
        non_inferiority([math.nan], [1], margin=0.1, rng=rng())
    with pytest.raises(BadInputError, match="margin"):
        equivalence([0.1], [1], margin=0.0)
    with pytest.raises(BadInputError, match="alpha"):
        equivalence([0.1], [1], margin=0.1, alpha=0.0)
    with pytest.raises(BadInputError, match=r"under 0\.5"):
        equivalence([0.1], [1], margin=0.1, alpha=0.5)


def test_two_one_sided_tests_agree_with_scipy() -> None:
    x = np.random.default_rng(74).normal(0.01, 0.1, 40)
    found = equivalence(x, np.ones(40), margin=0.05)
    above = stats.ttest_1samp(x, -0.05, alternative="greater").pvalue
    below = stats.ttest_1samp(x, 0.05, alternative="less").pvalue
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert found.p == pytest.approx(max(above, below))
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)


@given(st.floats(-0.3, 0.3), st.integers(2, 60), st.floats(0.001, 0.5))
@settings(deadline=None)
def test_equivalence_is_symmetric_and_p_agrees_with_the_interval(mean: float, c: int, margin: float) -> None:
    found = equivalence(losses(mean, c), np.ones(c), margin=margin)
    mirror = equivalence(-losses(mean, c), np.ones(c), margin=margin)
    assert found.decision == mirror.decision
    assert found.p == pytest.approx(mirror.p)
    assert (found.decision == "within") == (found.p < 0.05)


def test_identical_artefacts_are_equivalent_and_one_cluster_is_undecided() -> None:
    same = equivalence(np.zeros(5), np.ones(5), margin=0.01)
    assert (same.decision, same.p, same.low, same.high) == ("within", 0.0, 0.0, 0.0)
    moved = equivalence(np.full(5, 0.5), np.ones(5), margin=0.01)
    assert (moved.decision, moved.p) == ("outside", 1.0)
    single = equivalence([0.0], [5], margin=0.01)
    assert (single.decision, single.p, single.low, single.n_to_decide) == ("undecided", 1.0, None, None)


def test_a_difference_wholly_beyond_the_margin_is_outside_on_either_side() -> None:
    assert equivalence(losses(0.3, 20), np.ones(20), margin=0.05).decision == "outside"
    assert equivalence(losses(-0.3, 20), np.ones(20), margin=0.05).decision == "outside"
    undecided = equivalence(losses(0.04, 20), np.ones(20), margin=0.05)
    assert undecided.decision == "undecided"
    assert undecided.n_to_decide is not None
    assert (
        equivalence(losses(0.04, undecided.n_to_decide), np.ones(undecided.n_to_decide), margin=0.05).decision
        == "within"
    )
