from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.auc import auc, differ_in_any, newcombe_bounds

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


def found(a: object, b: object, **options: float) -> object:
    return auc(a, b, rng=stream(0, "auc"), **options)


@settings(deadline=None, max_examples=30)
@given(SCORES, SCORES)
def test_the_area_is_that_of_mann_and_whitney_and_mirrors_when_sets_are_swapped(a: list[int], b: list[int]) -> None:
    one, other = found(a, b), found(b, a)
    assert one.estimate == pytest.approx(stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)))
    assert one.estimate + other.estimate == pytest.approx(1)
    assert 0 <= one.low <= one.estimate <= one.high <= 1
    assert one.low == pytest.approx(1 - other.high, abs=1e-9)
    assert 1 / 10_000 <= one.p <= 1


def test_any_increasing_change_of_the_score_leaves_the_area_alone() -> None:
    rng = stream(1, "auc")
    a, b = rng.normal(0.5, 1, 20), rng.normal(0, 1, 25)
    assert found(a, b).estimate == found(np.exp(a), np.exp(b)).estimate


def test_p_agrees_with_the_exact_test_of_scipy() -> None:
    rng = stream(2, "auc")
    a, b = rng.normal(0.8, 1, 9), rng.normal(0, 1, 8)
    exact = stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue
    assert found(a, b).p == pytest.approx(exact, abs=0.01)


def test_sets_that_do_not_overlap_still_have_an_interval() -> None:
    one = found(np.arange(30) + 100, np.arange(30))
    assert (one.estimate, one.high, one.p) == (1.0, 1.0, 1e-4)
    assert 0.85 < one.low < 1
    alike = found(np.zeros(30), np.zeros(30))
    assert (alike.estimate, alike.p) == (0.5, 1.0)


def test_bounds_solve_the_equation_that_defines_them() -> None:
    low, high = newcombe_bounds(0.7, 40, 30, z=1.96)
    for x in (low, high):
        spread = 1 + (35 - 1) * ((1 - x) / (2 - x) + x / (1 + x))
        assert abs(x - 0.7) == pytest.approx(1.96 * np.sqrt(x * (1 - x) / 1200 * spread), abs=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.75, 1.5])
def test_the_interval_covers_as_often_as_it_says(shift: float) -> None:
    truth, rng = stats.norm.cdf(shift / np.sqrt(2)), stream(3, "auc", repr(shift))
    hits = 0
    for _ in range(300):
        a, b = rng.normal(shift, 1, 30), rng.normal(0, 1, 30)
        area = stats.mannwhitneyu(a, b).statistic / 900
        low, high = newcombe_bounds(float(area), 30, 30, z=1.96)
        hits += low <= truth <= high
    assert hits / 300 >= 0.92


def test_a_feature_that_differs_is_found_among_many_and_noise_is_not() -> None:
    rng = stream(4, "form")
    a, b = rng.normal(0, 1, (30, 9)), rng.normal(0, 1, (30, 9))
    assert differ_in_any(a, b, rng=stream(0, "form")).p > 0.05
    a[:, 3] += 1.5
    shifted = differ_in_any(a, b, rng=stream(0, "form"))
    assert shifted.p <= 0.01
    assert int(np.argmax(shifted.areas)) == 3


def test_differing_in_any_keeps_its_level_over_features() -> None:
    rng = stream(5, "form")
    p = [differ_in_any(*rng.normal(0, 1, (2, 8, 5)), rng=stream(run, "level")).p for run in range(60)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


@pytest.mark.parametrize(("a", "b"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])])
def test_nothing_and_what_is_no_number_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(BadInputError):
        found(a, b)
    with pytest.raises(BadInputError):
        differ_in_any(np.array(a).reshape(-1, 1), np.array(b).reshape(-1, 1), rng=stream(0, "form"))
