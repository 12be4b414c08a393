"""What is left of an effect with distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.decay import decay, rates

X = np.array([0.0, 256.0, 512.0, 1024.0])


def effects(half_life: float, n: int = 12, *, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(0, 0.5, n)) * np.exp2(-X / half_life)[:, None] * np.exp(rng.normal(0, noise, (4, n)))


@pytest.mark.parametrize("half_life", [100.0, 512.0, 3000.0])
def test_without_noise_the_half_life_is_found(half_life: float) -> None:
    found = decay(X, effects(half_life, noise=0.0))
    assert found.half_life == pytest.approx(half_life, rel=1e-6)
    assert found.left == pytest.approx(np.exp2(-X / half_life))
    assert found.half_life_low == pytest.approx(half_life, rel=1e-3)


@pytest.mark.parametrize("half_life", [256.0, 900.0])
def test_the_grid_and_the_least_squares_of_scipy_agree(half_life: float) -> None:
    found = decay(X, effects(half_life))
    assert math.log(2) / rates(X, found.left[None, :])[0] == pytest.approx(found.half_life, rel=1e-4)


def test_an_effect_that_stays_or_grows_has_no_half_life_and_every_bound_is_long() -> None:
    still = decay(X, effects(math.inf, noise=0.0))
    assert still.half_life is not None
    assert still.half_life > 1e9
    growing = decay(X, effects(-400.0))
    assert growing.half_life == growing.half_life_high == math.inf
    assert growing.left[-1] > 3


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    missed = np.zeros(2)
    for seed in range(200):
        found = decay(X, effects(512.0, n=8, noise=0.5, seed=seed))
        assert found.low is not None
        assert found.high is not None
        assert found.half_life_low is not None
        missed += found.low[-1] > 0.25, found.half_life_low > 512
    assert (missed / 200 <= 0.09).all()


def test_a_scale_of_the_effects_and_of_the_distances_changes_nothing_else() -> None:
    table = effects(300.0)
    one, two = decay(X, table), decay(X / 256, table * 7)
    assert two.left == pytest.approx(one.left)
    assert two.low == pytest.approx(one.low)
    assert two.half_life * 256 == pytest.approx(one.half_life)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 20))
def test_the_estimate_lies_in_its_interval(seed: int, n: int) -> None:
    found = decay(X, effects(500.0, n, noise=0.6, seed=seed))
    assert found.low is not None
    assert found.high is not None
    assert (found.low <= found.left + 1e-12).all()
    assert (found.left <= found.high + 1e-12).all()
    assert found.half_life_low is not None
    assert found.half_life_low <= (found.half_life or 0) <= (found.half_life_high or 0)


def test_degenerate_tables_have_a_defined_answer() -> None:
    alone = decay(X, effects(500.0, 1))
    assert (alone.low, alone.half_life_low) == (None, None)
    assert alone.method == "none: fewer than 2 units with an effect"
    gone = decay(X, np.array([[1.0, 2.0], [0, 0], [0, 0], [0, 0]]))
    assert gone.left.tolist() == [1, 0, 0, 0]
    assert gone.high is not None
    assert gone.high[-1] == 0
    assert gone.half_life is not None
    assert gone.half_life < 100
    by_one = decay(X, np.array([[1.0, 0.0], [1, 0], [1, 0], [1, 0]]))
    assert by_one.left.tolist() == [1, 1, 1, 1]
    assert (by_one.low, by_one.half_life_high, by_one.n_units, by_one.n_telling, by_one.worth) == (None, None, 2, 1, 1)
    two = decay(X[:2], effects(500.0)[:2])
    assert (two.half_life, two.half_life_low, two.half_life_high) == (None, None, None)


def test_units_without_an_effect_change_no_interval() -> None:
    table = effects(500.0, 6)
    one, two = decay(X, table), decay(X, np.concatenate([table, np.zeros((4, 9))], axis=1))
    assert (two.n_units, two.n_telling, two.worth) == (15, 6, pytest.approx(one.worth))
    assert two.low == pytest.approx(one.low)
    assert two.half_life_high == pytest.approx(one.half_life_high)


def test_units_are_worth_as_many_as_they_are_alike() -> None:
    assert decay(X, np.ones((4, 7))).worth == pytest.approx(7)
    assert decay(X, 1e-200 * np.ones((4, 7))).worth == pytest.approx(7)
    assert decay(X, np.ones((4, 7)) * [100, 1, 1, 1, 1, 1, 1]).worth == pytest.approx(106**2 / 10006)


@pytest.mark.parametrize(
    ("x", "table", "why"),
    [
        ([0, 1], np.zeros((2, 3)), "no effect at distance 0"),
        ([0, 1], -np.ones((2, 3)), "negative"),
        ([0, 1], np.full((2, 3), np.nan), "value 0 is nan"),
        ([1, 2], np.ones((2, 3)), "rise from 0"),
        ([0, 0], np.ones((2, 3)), "rise from 0"),
        ([0, 1], np.ones((3, 3)), "got shape"),
        ([0, 1], np.ones((2, 0)), "got shape"),
        ([0], np.ones((1, 2)), "at least 2"),
    ],
)
def test_what_means_nothing_is_refused(x: list[float], table: np.ndarray, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        decay(x, table)
