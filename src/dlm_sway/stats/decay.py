"""How an effect falls with distance: what is left of it at each one, and its half-life, both with intervals.

Every unit (a prompt) is measured at every distance, so the ratios are of sums over the same units, and what varies are
the units. One without an effect at any distance says nothing about what is left, so it has no part in an interval. The
curve is `a * 2^(-x / h)`, fitted by non-linear least squares to what is left of the effect; its rate may be negative,
so that an effect which does not decay is no edge of the model.

Intervals are delete-one jackknife t intervals, on the log scale for shares and on asinh(2 k x) for the rate k, which
is log-like for fast decay and linear around none. With 8 to 32 units of heavy-tailed effects a BCa bootstrap missed
on each side 4 to 6 % of the time where it promises 2.5 %, these 3 to 4 % (docs/statistics/probes-context.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_vector, inside_unit

FEWEST_POINTS: Final = 3
"""Two points fit any rate."""
_FASTEST: Final = 20.0  # half-lives are told apart down to 1/29 of the longest distance
_SLOWEST: Final = -5.0
_GRID: Final = 41
_ROUNDS: Final = 6
_BATCH_ELEMENTS: Final = 1 << 20
_NONE: Final = "none: fewer than 2 units with an effect"
_JACKKNIFE: Final = "jackknife t over units"


@dataclass(frozen=True, slots=True, eq=False)
class Decay:
    """What is left of an effect with distance.

    Attributes:
        x: f64[n_x], distances, the first 0.
        left: f64[n_x], share of the effect at distance 0, 1 at first.
        low: f64[n_x], lower ends of its intervals over units; None with fewer than two that have an effect.
        high: f64[n_x], upper ends; None likewise.
        se: f64[n_x], jackknife standard errors; None likewise.
        half_life: distance at which half is left, in the unit of x; infinite where the effect does not fall; None
            with fewer than three distances, which fit any curve.
        half_life_low: lower end of its interval; None without one.
        half_life_high: upper end, which may be infinite; None without an interval.
        n_units: units that went in.
        n_telling: of these, units with an effect at some distance; the intervals are over them.
        worth: how many units of equal effect at distance 0 tell as much (Kish): 1 where all of it is that of one unit.
        method: how the intervals were made.
    """

    x: FloatArray
    left: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    se: FloatArray | None
    half_life: float | None
    half_life_low: float | None
    half_life_high: float | None
    n_units: int
    n_telling: int
    worth: float
    method: str


def decay(x: npt.ArrayLike, effects: npt.ArrayLike, *, confidence: float = 0.95) -> Decay:
    """Return what is left of an effect at each distance, and its half-life.

    Args:
        x: f64[n_x], n_x >= 2, rising from 0.
        effects: f64[n_x, n], the effect of each unit at each distance, none negative, some at distance 0.
        confidence: of the two-sided intervals (Efron and Stein 1981 for the jackknife variance).

    Raises:
        BadInputError: shapes that do not fit, distances that do not rise from 0, a value that is negative or not
            finite, or no effect at distance 0.
    """
    distances, table = _decay_iv(x, effects)
    tail = (1 - inside_unit(confidence, where="decay: confidence")) / 2
    left = table.sum(axis=1) / table[0].sum()
    rate = _rate(distances, left) if distances.size >= FEWEST_POINTS else None
    telling = table[:, table.any(axis=0)]
    n_units, n, worth = table.shape[1], telling.shape[1], _worth(table[0])
    if n < 2:  # noqa: PLR2004 (one unit has no spread)
        return Decay(distances, left, None, None, None, _half_life(rate), None, None, n_units, n, worth, _NONE)
    t = -float(special.stdtrit(n - 1, tail))
    without = _left_out(telling)  # [n, n_x]
    se = _jackknife_se(without)
    low, high = _share_ends(left, without, se, t=t)
    slow = fast = None
    if rate is not None:
        slow, fast = _rate_ends(rate, rates(distances, without), float(distances[-1]), t=t)
    return Decay(
        x=distances,
        left=left,
        low=low,
        high=high,
        se=se,
        half_life=_half_life(rate),
        half_life_low=_half_life(fast),
        half_life_high=_half_life(slow),
        n_units=n_units,
        n_telling=n,
        worth=worth,
        method=_JACKKNIFE,
    )


def rates(x: FloatArray, left: FloatArray) -> FloatArray:
    """Return the least-squares rate k of `a * exp(-k x)` for each row of `left`, f64[B, n_x] to f64[B].

    The best `a` follows from k in closed form (variable projection, Golub and Pereyra 1973), so the search is over k
    alone: a grid that closes in, the same for all rows at once. k times the longest distance stays in [-5, 20].
    """
    step = max(1, _BATCH_ELEMENTS // (_GRID * x.size))
    parts = [_rates(x / x[-1], left[i : i + step]) for i in range(0, len(left), step)]
    return np.asarray(np.concatenate(parts) / x[-1])


def _rates(x: FloatArray, y: FloatArray) -> FloatArray:
    centre, reach = np.full(len(y), (_FASTEST + _SLOWEST) / 2), (_FASTEST - _SLOWEST) / 2
    for _ in range(_ROUNDS):
        k = np.clip(centre[:, None] + reach * np.linspace(-1, 1, _GRID), _SLOWEST, _FASTEST)  # [B, G]
        curve = np.exp(-k[:, :, None] * x)  # [B, G, n_x]
        explained = np.einsum("bgx,bx->bg", curve, y) ** 2 / np.einsum("bgx,bgx->bg", curve, curve)
        centre = k[np.arange(len(y)), explained.argmax(axis=1)]
        reach *= 3 / (_GRID - 1)  # wider than a cell: the coarse grid need not bracket the best rate
    return np.asarray(centre, dtype=np.float64)


def _rate(x: FloatArray, left: FloatArray) -> float:
    """Return the rate of one curve by Levenberg-Marquardt, started at the best of the grid."""
    unit = x / x[-1]
    start = float(rates(unit, left[None, :])[0])
    curve = np.exp(-start * unit)
    amplitude = float(curve @ left / (curve @ curve))

    def misfit(p: FloatArray) -> FloatArray:
        return np.asarray(p[0] * np.exp(-np.clip(p[1], -50, 50) * unit) - left)

    found = optimize.least_squares(misfit, (amplitude, start))
    return float(np.clip(found.x[1], _SLOWEST, _FASTEST) / x[-1])


def _half_life(rate: float | None) -> float | None:
    if rate is None:
        return None
    return math.log(2) / rate if rate > 0 else math.inf


def _worth(at_zero: FloatArray) -> float:
    share = at_zero / at_zero.max()  # a square of what is tiny is 0
    return float(share.sum() ** 2 / (share**2).sum())


def _left_out(table: FloatArray) -> FloatArray:
    """Return f64[n, n_x]: what is left without each unit in turn; without the only one at distance 0, as it was."""
    sums = table.sum(axis=1)[None, :] - table.T
    whole = table.sum(axis=1) / table[0].sum()
    start = sums[:, :1]
    return np.asarray(np.where(start > 0, np.maximum(sums, 0.0) / np.where(start > 0, start, 1.0), whole))


def _jackknife_se(without: FloatArray) -> FloatArray:
    n = len(without)
    return np.asarray(np.sqrt((n - 1) / n * np.sum((without - without.mean(axis=0)) ** 2, axis=0)))


def _share_ends(left: FloatArray, without: FloatArray, se: FloatArray, *, t: float) -> tuple[FloatArray, FloatArray]:
    positive = (left > 0) & (without > 0).all(axis=0)
    # Where an effect hangs on one unit, or is gone, it has no logarithm.
    low, high = np.maximum(0.0, left - t * se), left + t * se
    logs = np.log(np.where(positive, without, 1.0))
    factor = np.exp(np.minimum(t * _jackknife_se(logs), _LARGEST_LOG))
    return np.where(positive, left / factor, low), np.where(positive, left * factor, high)


_LARGEST_LOG: Final = 100.0


def _rate_ends(rate: float, without: FloatArray, longest: float, *, t: float) -> tuple[float, float]:
    moved = np.arcsinh(2 * longest * without)
    reach = t * float(_jackknife_se(moved[:, None])[0])
    centre = math.asinh(2 * longest * rate)
    slow, fast = (math.sinh(np.clip(centre + side * reach, -_LARGEST_LOG, _LARGEST_LOG)) for side in (-1, 1))
    return slow / (2 * longest), fast / (2 * longest)


def _decay_iv(x: npt.ArrayLike, effects: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    distances = finite_vector(x, where="decay: x", at_least=2)
    if distances[0] != 0 or np.any(np.diff(distances) <= 0):
        raise BadInputError(f"must rise from 0, got {distances.tolist()}", where="decay: x")
    table = np.asarray(effects, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != distances.size or not table.shape[1]:  # noqa: PLR2004 (a table)
        raise BadInputError(f"expected ({distances.size}, n) effects, got shape {table.shape}", where="decay: effects")
    values = finite_vector(table.ravel(), where="decay: effects")
    if values.min() < 0:
        raise BadInputError("an effect is negative", where="decay: effects")
    if table[0].sum() <= 0:
        raise BadInputError("there is no effect at distance 0, so none can fall", where="decay: effects")
    return distances, table
