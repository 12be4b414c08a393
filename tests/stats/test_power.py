from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.power import (
    MAX_CLUSTERS,
    clusters_for_bound,
    clusters_needed,
    draws_needed,
    require_draws,
    smallest_effect,
    smallest_shown,
)


def test_the_smallest_effect_is_found_with_the_promised_power() -> None:
    effect = smallest_effect(0.1)
    assert stats.norm.sf(stats.norm.isf(0.05) - effect / 0.1) == pytest.approx(0.8)
    assert smallest_effect(0.0) == 0.0


@pytest.mark.parametrize("n", [6, 12, 30, 128])
def test_with_its_degrees_of_freedom_it_is_found_by_the_t_test(n: int) -> None:
    effect = smallest_effect(1.0, alpha=0.025, df=n - 1)
    assert stats.nct.sf(stats.t.isf(0.025, n - 1), n - 1, effect) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("minimum", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("n", [8, 40, 128, 400])
def test_what_is_shown_to_be_at_least_a_minimum_is_shown_four_times_in_five(n: int, minimum: float) -> None:
    """By the rule that claims use: the estimate reaches the minimum, and the lower bound at 2.5 % lies over zero."""
    effect = smallest_shown(0.2 / n**0.5, minimum, df=n - 1)
    values = effect + 0.2 * stream(n, "shown").standard_normal((4000, n))
    means, se = values.mean(axis=1), values.std(axis=1, ddof=1) / n**0.5
    shown = (means >= minimum) & (means > stats.t.isf(0.025, n - 1) * se)
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


@given(st.floats(0.01, 10), st.floats(0.05, 10), st.sampled_from([0.01, 0.05]), st.sampled_from([0.7, 0.8, 0.95]))
@settings(deadline=None)
def test_the_number_of_clusters_gives_the_power_and_one_fewer_does_not(
    sd: float, effect: float, alpha: float, power: float
) -> None:
    c = clusters_needed(sd, effect, alpha=alpha, power=power)

    def reached(n: int) -> float:
        return float(stats.nct.sf(stats.t.isf(alpha, n - 1), n - 1, effect / sd * math.sqrt(n)))

    if 20 <= c <= 10_000:
        assert reached(c) == pytest.approx(power, abs=0.03)
        assert reached(c - 2) < power + 0.01


def test_known_sample_sizes() -> None:
    # One-sided paired t test, d = 0.5, power 0.8: 27 pairs (G*Power).
    assert clusters_needed(1.0, 0.5) == 27
    assert clusters_needed(0.0, 0.5) == 2
    assert clusters_needed(1.0, 1e-6) == MAX_CLUSTERS + 1


def test_a_given_critical_value_replaces_the_quantile() -> None:
    assert clusters_for_bound(1.0, 0.1, alpha=0.05, critical=2.0) == 400
    assert clusters_for_bound(1.0, 0.1, alpha=0.05) == clusters_needed(1.0, 0.1, power=0.5)


def test_too_few_draws_are_refused_by_the_level_that_they_cannot_reach() -> None:
    require_draws(19)
    require_draws(99, alpha=0.01)
    message = "18 draws are too few: p is at least 1/19, so nothing could reach 0.05; ask for 19 draws or more"
    with pytest.raises(BadInputError, match=message):
        require_draws(18)
    with pytest.raises(BadInputError, match=r"nothing could reach 0\.01; ask for 99 draws"):
        require_draws(98, alpha=0.01)


def test_draws_needed_for_one_test_for_max_t_and_for_a_family() -> None:
    assert draws_needed(0.05) == 19
    assert draws_needed(0.05, 12) == 239
    assert draws_needed(0.01) == 99
    assert draws_needed(0.9) == 1


@given(st.floats(0.001, 0.9), st.integers(1, 50))
@settings(deadline=None)
def test_draws_needed_are_enough_and_not_one_too_many(alpha: float, family: int) -> None:
    m = draws_needed(alpha, family)
    assert family / (m + 1) <= alpha * (1 + 1e-9)
    assert m == 1 or family / m > alpha * (1 - 1e-9)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_impossible_sizes_are_refused(bad: float) -> None:
    with pytest.raises(BadInputError, match="se"):
        smallest_effect(bad)
    with pytest.raises(BadInputError, match="sd_per_cluster"):
        clusters_needed(bad, 1.0)
    with pytest.raises(BadInputError, match="effect"):
        clusters_needed(1.0, bad)
    with pytest.raises(BadInputError, match="effect"):
        clusters_for_bound(1.0, bad, alpha=0.05, critical=2.0)


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"at least 0\.5"):
        clusters_needed(1.0, 1.0, power=0.3)
    with pytest.raises(BadInputError, match="alpha"):
        smallest_effect(1.0, alpha=1.5)
    with pytest.raises(BadInputError, match="df: must be at least 1"):
        smallest_effect(1.0, df=0)
    with pytest.raises(BadInputError, match="minimum"):
        smallest_shown(1.0, -0.1)
    with pytest.raises(BadInputError, match="alpha"):
        draws_needed(0.0)
    with pytest.raises(BadInputError, match="family"):
        draws_needed(0.05, 0)
