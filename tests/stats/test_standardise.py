from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.standardise import expected_gain


def _tokens(rng: np.random.Generator, n: int, *, centre: float) -> np.ndarray:
    return -np.abs(rng.normal(centre, 3.0, n))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 400))
def test_residuals_on_the_controls_sum_to_zero(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = _tokens(rng, n, centre=4.0), rng.normal(size=n)
    assert (y - expected_gain(x, y).at(x)).sum() == pytest.approx(0.0, abs=1e-6 * n)


def test_a_harder_text_that_gains_by_difficulty_alone_has_no_excess() -> None:
    rng = np.random.default_rng(0)
    easy, hard = _tokens(rng, 4000, centre=3.0), _tokens(rng, 4000, centre=6.0)
    rule = lambda b: 0.1 * np.maximum(0.0, -b - 2.0)  # noqa: E731 (one line says it)
    gains = rule(easy) + rng.normal(0, 0.3, easy.size)
    plain = rule(hard).mean() - gains.mean()
    excess = (rule(hard) - expected_gain(easy, gains).at(hard)).mean()
    assert plain > 0.15
    assert abs(excess) < 0.03


def test_a_real_excess_is_kept() -> None:
    rng = np.random.default_rng(1)
    control, target = _tokens(rng, 3000, centre=4.0), _tokens(rng, 3000, centre=5.0)
    fitted = expected_gain(control, -0.05 * control)
    assert (0.4 - 0.05 * target - fitted.at(target)).mean() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("n", [1, 49])
def test_few_tokens_leave_the_plain_mean(n: int) -> None:
    x = np.linspace(-9, -1, n)
    assert expected_gain(x, 2 * x).at([-100.0, 0.0]) == pytest.approx([2 * x.mean()] * 2)


def test_tokens_of_one_difficulty_leave_the_plain_mean() -> None:
    assert expected_gain(np.full(80, -2.0), np.arange(80.0)).at([-5.0]) == pytest.approx([39.5])


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([-1.0], [1.0, 2.0]), ([float("nan")], [1.0]), ([-1.0], [float("inf")])]
)
def test_what_is_no_pair_of_tokens_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(BadInputError):
        expected_gain(x, y)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 50))
def test_the_weights_give_the_mean_expectation_as_a_sum_of_control_gains(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    control, target, gains = _tokens(rng, n, centre=4.0), _tokens(rng, m, centre=6.0), rng.normal(size=n)
    fitted = expected_gain(control, gains)
    weights = fitted.weights(control, target)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert weights @ gains == pytest.approx(fitted.at(target).mean(), abs=1e-5)


def test_few_hard_controls_weigh_more_in_what_is_expected_of_a_hard_text() -> None:
    rng = np.random.default_rng(0)
    control = _tokens(rng, 600, centre=2.0)
    like, harder = (expected_gain(control, control).weights(control, control - by) for by in (0.0, 5.0))
    assert np.square(like).sum() == pytest.approx(1 / 600, rel=0.05)
    assert np.square(harder).sum() > 3 / 600
