from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.calibration import answered_right, brier, log_loss, option_logprobs, slope, slope_change

GRIDS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=st.floats(-60, 0)
)


def drawn(n: int, beta: float, *words: int | str, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Questions whose right option is drawn from softmax(beta * scores)."""
    rng = stream(*words, "calibration", n)
    scores = rng.normal(0, 2, (n, k))
    p = special.softmax(beta * scores, axis=1)
    right = (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    return scores, np.minimum(right, k - 1)


@settings(deadline=None)
@given(GRIDS, st.integers(0, 5), st.floats(-100, 100))
def test_scores_are_proper_bounded_and_do_not_care_for_a_constant(grid: np.ndarray, pick: int, shift: float) -> None:
    right = np.full(len(grid), pick % grid.shape[1])
    logp = option_logprobs(grid)
    np.testing.assert_allclose(np.exp(logp).sum(axis=1), 1.0)
    assert (log_loss(logp, right) >= -1e-12).all()
    assert ((brier(logp, right) >= 0) & (brier(logp, right) <= 2 + 1e-12)).all()
    np.testing.assert_allclose(option_logprobs(grid + shift), logp, atol=1e-9)


@settings(deadline=None)
@given(GRIDS)
def test_the_truth_is_the_best_forecast_on_average(grid: np.ndarray) -> None:
    """Properness: under p, stating p costs no more than stating another q."""
    logp = option_logprobs(grid)
    other = logp[:, ::-1]
    n, k = grid.shape
    for score in (log_loss, brier):
        costs = [sum(np.exp(logp[:, j]) * score(stated, np.full(n, j)) for j in range(k)) for stated in (logp, other)]
        assert (costs[0] <= costs[1] + 1e-9).all()


def test_scores_of_a_sure_and_of_an_undecided_answer() -> None:
    logp = option_logprobs(np.array([[0.0, -1000.0], [0.0, 0.0]]))
    right = np.array([0, 1])
    np.testing.assert_allclose(log_loss(logp, right), [0.0, np.log(2)])
    np.testing.assert_allclose(brier(logp, right), [0.0, 0.5])
    assert answered_right(logp, right).tolist() == [True, False]  # a tie is not right


def test_a_question_may_have_fewer_options() -> None:
    three, four = np.array([[-1.0, -2.0, -3.0]]), np.array([[-1.0, -2.0, -3.0, -np.inf]])
    right = np.array([1])
    assert log_loss(option_logprobs(four), right) == pytest.approx(log_loss(option_logprobs(three), right))
    assert brier(option_logprobs(four), right) == pytest.approx(brier(option_logprobs(three), right))
    scores, right = drawn(50, 1.0, 3)
    padded = np.concatenate([scores, np.full((50, 1), -np.inf)], axis=1)
    assert slope(padded, right).estimate == pytest.approx(slope(scores, right).estimate)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_the_slope_finds_what_the_answers_were_drawn_with(beta: float) -> None:
    found = slope(*drawn(4000, beta, 1))
    assert found.low < beta < found.high
    assert found.high - found.low < 0.3 * max(beta, 0.5)


def test_scores_twice_as_sharp_have_half_the_slope() -> None:
    scores, right = drawn(300, 1.0, 2)
    once, twice = slope(scores, right), slope(2 * scores, right)
    assert twice.estimate == pytest.approx(once.estimate / 2)
    change = slope_change(scores, 2 * scores, right)
    assert change.estimate == pytest.approx(twice.estimate - once.estimate)
    assert change.low < change.estimate < change.high < 0


def test_the_interval_of_a_slope_covers_as_often_as_it_says() -> None:
    hits = 0
    for run in range(300):
        found = slope(*drawn(120, 1.0, 100 + run))
        hits += found.low <= 1.0 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_no_change_has_no_width() -> None:
    scores, right = drawn(40, 1.0, 4)
    assert slope_change(scores, scores, right) == type(slope(scores, right))(0.0, 0.0, 0.0)


def test_always_right_never_right_and_equal_scores_have_no_slope() -> None:
    scores = np.array([[0.0, -1.0], [0.0, -2.0]])
    assert slope(scores, np.array([0, 0])).estimate is None
    assert slope(scores, np.array([1, 1])).estimate is None
    assert slope(np.zeros((5, 3)), np.zeros(5, dtype=int)).estimate is None
    assert slope_change(scores, scores, np.array([0, 0])).estimate is None


@pytest.mark.parametrize(
    "grid", [[[np.nan, 0.0]], [[np.inf, 0.0]], [[0.0, -np.inf]], [0.0, 1.0], [[0.0]], [[-1e80, 0.0]]]
)
def test_what_is_no_number_or_no_question_is_refused(grid: object) -> None:
    with pytest.raises(BadInputError):
        option_logprobs(grid)
