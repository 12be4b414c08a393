"""Gains at equal difficulty: what a control text would have gained had it been as hard as the target.

Any change of a model moves improbable tokens more than probable ones, so a text that the base finds hard gains more
from a fine-tune on anything. Comparing it with easier control text would call that "on target". The remedy is the
analysis of covariance (Cochran 1957, "Analysis of covariance: its nature and uses"): the gain of control tokens is
regressed on their log-prob under the base, and the target is compared with the regression at its own log-probs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError

FloatArray = npt.NDArray[np.float64]
_KNOTS = (0.1, 0.5)  # quantiles: the slope differs between rare, ordinary and near-certain tokens
_FEWEST = 50  # control tokens; fewer do not carry a curve


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """Gain of a control token as a function of its log-prob under the base: continuous, linear between knots.

    Attributes:
        knots: f64[k], base log-probs where the slope changes.
        coefficients: f64[2 + k], intercept, slope, and change of slope at each knot; the first alone when there were
            too few tokens, which leaves the plain mean.
    """

    knots: FloatArray
    coefficients: FloatArray

    def at(self, base_logprob: npt.ArrayLike) -> FloatArray:
        """Return the expected gain of tokens with these base log-probs, nats, f64[n]."""
        expected: FloatArray = self._rows(base_logprob) @ self.coefficients
        return expected

    def weights(self, control: npt.ArrayLike, target: npt.ArrayLike) -> FloatArray:
        """Return the weights, f64[n], of the control tokens' gains in the mean expected gain of the target's tokens.

        They sum to one, and are larger where the target is hard and controls are few: that mean is known as well as
        these few are, which an interval has to pay for.

        Args:
            control: f64[n], base log-probs of the tokens it was fitted to.
            target: f64[m], those of the target's tokens.
        """
        # The fit is linear in the gains: x' (X' X)^-1 X' y, and this w is the least solution of X' w = x.
        found, *_ = np.linalg.lstsq(self._rows(control).T, self._rows(target).mean(axis=0), rcond=None)
        return np.asarray(found, dtype=np.float64)

    def _rows(self, base_logprob: npt.ArrayLike) -> FloatArray:
        rows = _design(np.asarray(base_logprob, dtype=np.float64), self.knots)
        return rows[:, : self.coefficients.size]


def expected_gain(base_logprob: npt.ArrayLike, gains: npt.ArrayLike) -> ExpectedGain:
    """Fit the expected gain to control tokens by least squares; its residuals on them sum to zero.

    Args:
        base_logprob: f64[n], log-prob of each control token under the base, nats.
        gains: f64[n], its gain under the fine-tune, nats.

    Raises:
        BadInputError: the arrays are empty, differ in length or hold a number that is not finite.
    """
    x, y = _expected_gain_iv(base_logprob, gains)
    knots = np.unique(np.quantile(x, _KNOTS))
    if x.size < _FEWEST or np.ptp(x) == 0:
        return ExpectedGain(knots, y.mean(keepdims=True))
    coefficients, *_ = np.linalg.lstsq(_design(x, knots), y, rcond=None)
    return ExpectedGain(knots, np.asarray(coefficients, dtype=np.float64))


def _design(x: FloatArray, knots: FloatArray) -> FloatArray:
    return np.column_stack([np.ones_like(x), x, *(np.maximum(0.0, x - k) for k in knots)])


def _expected_gain_iv(base_logprob: npt.ArrayLike, gains: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(base_logprob, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise BadInputError(f"base log-probs of shape {x.shape} and gains of shape {y.shape} are no pairs of tokens")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadInputError("a base log-prob or a gain is not finite")
    return x, y
