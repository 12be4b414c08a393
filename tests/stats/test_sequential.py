from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.equivalence import non_inferiority
from dlm_sway.stats.sequential import pocock_critical, small_sample

LOOKS = (32, 64, 128, 224)


@pytest.mark.parametrize(
    ("n_looks", "at_5", "at_2_5"),
    [(1, 1.645, 1.960), (2, 1.875, 2.178), (3, 1.992, 2.289), (4, 2.067, 2.361), (5, 2.122, 2.413)],
)
def test_equal_looks_give_pococks_published_constants(n_looks: int, at_5: float, at_2_5: float) -> None:
    # Jennison and Turnbull 2000, table 2.1; two-sided at 2 alpha there, which differs by less than 1e-3.
    fractions = [k / n_looks for k in range(1, n_looks + 1)]
    assert pocock_critical(fractions) == pytest.approx(at_5, abs=1e-3)
    assert pocock_critical(fractions, alpha=0.025) == pytest.approx(at_2_5, abs=1e-3)


@pytest.mark.parametrize("fractions", [LOOKS, (0.1, 0.2, 0.9, 1.0), (0.5, 0.506, 1.0), (32, 64, 128, 129)])
def test_it_agrees_with_the_multivariate_normal(fractions: tuple[float, ...]) -> None:
    z = pocock_critical(fractions)
    t = np.array(fractions, dtype=float)
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    stays = stats.multivariate_normal(np.zeros(t.size), correlation, seed=1).cdf(np.full(t.size, z))
    assert 1 - stays == pytest.approx(0.05, abs=2e-4)


@given(st.lists(st.floats(1.02, 4.0), min_size=1, max_size=5), st.floats(0.001, 0.2))
@settings(deadline=None, max_examples=25)
def test_it_lies_between_one_look_and_bonferroni_and_ignores_the_unit(steps: list[float], alpha: float) -> None:
    fractions = np.cumprod([1.0, *steps])
    z = pocock_critical(list(fractions), alpha=alpha)
    assert stats.norm.isf(alpha) < z < stats.norm.isf(alpha / fractions.size)
    assert pocock_critical(list(fractions / fractions[-1]), alpha=alpha) == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize("step", [1.002, 1.0005, 1 + 1e-12])
def test_a_look_that_follows_closely_costs_next_to_nothing(step: float) -> None:
    assert pocock_critical([0.5, 1.0, step]) == pytest.approx(pocock_critical([0.5, 1.0]), abs=0.03)


def test_one_more_look_costs_a_larger_value() -> None:
    assert pocock_critical([0.5, 1.0]) < pocock_critical([0.25, 0.5, 1.0])


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [-1.0, 1.0], [1.0, 0.5], [0.5, 0.5], [0.5, math.nan]])
def test_fractions_that_do_not_rise_are_refused(fractions: list[float]) -> None:
    with pytest.raises(BadInputError, match="pocock_critical"):
        pocock_critical(fractions)


def test_a_level_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(BadInputError, match="alpha"):
        pocock_critical([1.0], alpha=0.0)


@given(st.floats(-6, 6), st.floats(1, 1e4))
@settings(deadline=None)
def test_small_sample_keeps_the_tail_probability(z: float, df: float) -> None:
    assert stats.t.sf(small_sample(z, df), df) == pytest.approx(stats.norm.sf(z), rel=1e-6)


def test_small_sample_widens_and_tends_to_the_normal_value() -> None:
    assert small_sample(2.1, 31) > 2.1
    assert small_sample(2.1, 1e9) == pytest.approx(2.1, abs=1e-6)


@pytest.mark.parametrize(("critical", "df"), [(math.nan, 5), (40.0, 5), (2.0, 0.5), (2.0, math.inf)])
def test_small_sample_refuses_what_has_no_answer(critical: float, df: float) -> None:
    with pytest.raises(BadInputError, match="small_sample"):
        small_sample(critical, df)


def decided_within(loss: np.ndarray, z: float, rng: np.random.Generator) -> bool:  # type: ignore[type-arg]
    """Read up to each look, stop at the first decision, as `external_perplexity` does."""
    for c in LOOKS:
        critical = small_sample(z, c - 1)
        found = non_inferiority(loss[:c], np.ones(c), margin=0.05, critical=critical, rng=rng)
        if found.decision != "undecided":
            return found.decision == "within"
    return False


def test_four_looks_keep_the_error_of_non_inferiority_and_naive_looks_do_not() -> None:
    rng = np.random.default_rng(81)
    z, runs = pocock_critical(LOOKS), 1_500
    samples = rng.normal(0.05, 0.3, (runs, LOOKS[-1]))
    wrong = sum(decided_within(loss, z, rng) for loss in samples)
    naive = sum(decided_within(loss, float(stats.norm.isf(0.05)), rng) for loss in samples)
    assert stats.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 0.001
    assert stats.binomtest(naive, runs, 0.05, alternative="greater").pvalue < 0.001
