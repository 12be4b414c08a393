"""How good stated probabilities are: proper scores over options, and the slope that would mend their sharpness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import LARGEST, FloatArray, IntArray, inside_unit

STEEPEST: Final = 50.0
"""Slopes beyond this are no longer told from "the right option always scores highest"."""


@dataclass(frozen=True, slots=True)
class Slope:
    """The factor on log-odds that calibrates stated probabilities best, or the change of one.

    Attributes:
        estimate: 1 is calibrated, under 1 too sure, over 1 too timid; of a change, fine-tune minus base. None where
            no factor is best, such as where every question is answered right.
        low: lower end of the two-sided interval over questions.
        high: upper end.
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None


def option_logprobs(scores: npt.ArrayLike) -> FloatArray:
    """Return log-probs over the options, f64[n, k]: scores renormalised a question.

    Args:
        scores: f64[n, k], log-probs of each option in full; -inf where a question has fewer options.

    Raises:
        BadInputError: NaN, +inf, a question with fewer than two options.
    """
    grid = _scores_iv(scores)
    return np.asarray(grid - special.logsumexp(grid, axis=1, keepdims=True), dtype=np.float64)


def log_loss(logprobs: FloatArray, right: IntArray) -> FloatArray:
    """Return -log of the probability of the right option in nats, f64[n]; `logprobs` as of `option_logprobs`."""
    return np.asarray(-logprobs[np.arange(len(right)), right])


def brier(logprobs: FloatArray, right: IntArray) -> FloatArray:
    """Return Brier's score of each question, f64[n] in [0, 2]: squared distance to the truth over all options.

    Brier (1950), "Verification of forecasts expressed in terms of probability", in its original form.
    """
    error = np.exp(logprobs)
    error[np.arange(len(right)), right] -= 1.0
    return np.asarray((error**2).sum(axis=1))


def answered_right(scores: FloatArray, right: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether the right option alone has the highest score, bool[n]; a tie is not right."""
    own = scores[np.arange(len(right)), right]
    return np.asarray((scores >= own[:, None]).sum(axis=1) == 1)


def slope(scores: npt.ArrayLike, right: IntArray, *, confidence: float = 0.95) -> Slope:
    """Return the calibration slope: beta that maximises the likelihood of softmax(beta * scores) at the right options.

    Cox (1958) for two options; for more, the inverse of the temperature of Guo et al. (2017), "On calibration of
    modern neural networks". The interval is normal, with the sandwich variance over questions.

    Args:
        scores: f64[n, k], as for `option_logprobs`.
        right: i64[n], index of the right option.
        confidence: of the two-sided interval.
    """
    grid = _scores_iv(scores)
    found = _fitted(grid, right)
    return _interval(*found, confidence=confidence) if found else Slope(None)


def slope_change(base: npt.ArrayLike, finetuned: npt.ArrayLike, right: IntArray, *, confidence: float = 0.95) -> Slope:
    """Return the fine-tune's slope minus the base's on the same questions, paired; arguments as for `slope`."""
    first, second = (_fitted(_scores_iv(scores), right) for scores in (base, finetuned))
    if first is None or second is None:
        return Slope(None)
    return _interval(second[0] - first[0], second[1] - first[1], confidence=confidence)


def _fitted(scores: FloatArray, right: IntArray) -> tuple[float, FloatArray] | None:
    """Return the slope and each question's influence on it, f64[n]; None where no slope up to `STEEPEST` is best."""
    from scipy import optimize

    usable = np.isfinite(scores)
    values = np.where(usable, scores - scores.max(axis=1, keepdims=True), 0.0)
    own = values[np.arange(len(right)), right]

    def moments(beta: float) -> tuple[FloatArray, FloatArray]:
        weight = np.where(usable, special.softmax(np.where(usable, beta * values, -np.inf), axis=1), 0.0)
        mean = (weight * values).sum(axis=1)
        return own - mean, (weight * values**2).sum(axis=1) - mean**2

    # The likelihood is concave, so its derivative falls and has one root at most.
    if not moments(-STEEPEST)[0].sum() > 0 > moments(STEEPEST)[0].sum():
        return None
    beta = float(optimize.brentq(lambda b: float(moments(b)[0].sum()), -STEEPEST, STEEPEST, xtol=1e-10))
    gradient, curvature = moments(beta)
    total = float(curvature.sum())
    return (beta, gradient / total * len(right)) if total > 0 else None


def _interval(estimate: float, influence: FloatArray, *, confidence: float) -> Slope:
    n = len(influence)
    if n < 2:  # noqa: PLR2004 (one value has no spread)
        return Slope(estimate)
    z = -float(special.ndtri((1 - inside_unit(confidence, where="slope: confidence")) / 2))
    reach = z * float(np.std(influence, ddof=1)) / math.sqrt(n)
    return Slope(estimate, estimate - reach, estimate + reach)


def _scores_iv(scores: npt.ArrayLike) -> FloatArray:
    grid = np.array(scores, dtype=np.float64)
    if grid.ndim != 2:  # noqa: PLR2004 (questions by options)
        raise BadInputError(f"expected two dimensions, got shape {grid.shape}", where="scores of options")
    bad = np.isnan(grid) | (grid > LARGEST) | (np.isfinite(grid) & (grid < -LARGEST))
    few = np.isfinite(grid).sum(axis=1) < 2  # noqa: PLR2004 (one option is no question)
    if bad.any() or few.any():
        first = int(np.argmax(bad.any(axis=1) | few))
        raise BadInputError(f"question {first} has the scores {grid[first].tolist()}", where="scores of options")
    return grid
