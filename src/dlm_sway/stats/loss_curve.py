"""The shape of a training loss: where it starts and ends, its noise, its spikes and its last third.

Losses are compared by their logarithm where all are positive: the noise of a batch loss grows with the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dlm_sway.stats._inputs import FloatArray, finite_vector

FEWEST: Final = 15
"""Points from which a start, an end and the noise between can be told apart."""
ENDS: Final = 5
"""Points whose median is the start, and the end; a twentieth of the curve where that is more, at most 50."""
_MOST_ENDS: Final = 50
SPIKE_SD: Final = 5.0
_WINDOW: Final = 11
_MOST_PARTS: Final = 200
_MAD: Final = 1.4826 / 0.897  # a Gaussian's sd over its MAD; around a running median that it is part of, 0.897 is left
_MEAN_DEVIATION: Final = 1.2533  # a Gaussian's sd over its mean absolute deviation
_MEDIAN_SE: Final = 1.2533  # standard error of a median over that of a mean
_MOST_CORRELATED: Final = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class LossCurve:
    """What a curve shows.

    Attributes:
        start: median of its first points (5, or a twentieth of them), in the unit of the loss.
        end: median of as many at the end.
        lowest: smallest running median of as many.
        fall: log(start / end), or start - end where a loss is not positive.
        fall_se: standard error of `fall` under the noise of the curve.
        given_back: log(end / lowest), likewise.
        noise_sd: robust standard deviation around the running median, in logs likewise; by the mean deviation where
            more than half of the points lie on it.
        spikes: i64[k], indices of points over 5 noise_sd above what comes before and above what comes after.
        late_rise: rise over the last third by Theil-Sen, in logs likewise.
        late_rise_se: its standard error under the noise of the curve.
        logs: whether logarithms were taken.
    """

    start: float
    end: float
    lowest: float
    fall: float
    fall_se: float
    given_back: float
    noise_sd: float
    spikes: npt.NDArray[np.int64]
    late_rise: float
    late_rise_se: float
    logs: bool


def loss_curve(loss: npt.ArrayLike) -> LossCurve:
    """Return the shape of a training loss, float64[n] with n >= 15, in the order of its steps.

    Standard errors allow for noise that is correlated from one point to the next (first-order, estimated).

    Raises:
        BadInputError: fewer points, or a value that is not finite.
    """
    values = finite_vector(loss, where="loss_curve: loss", at_least=FEWEST)
    logs = bool(values.min() > 0)
    y = np.log(values) if logs else values
    rest = y - ndimage.median_filter(y, _WINDOW, mode="reflect")
    sd = _noise_sd(rest)
    inflation = _inflation(rest)
    ends = min(max(ENDS, len(y) // 20), _MOST_ENDS)
    first, last = float(np.median(y[:ends])), float(np.median(y[-ends:]))
    running = np.median(np.lib.stride_tricks.sliding_window_view(y, ends), axis=1)
    third = y[-max(ENDS, len(y) // 3) :]
    return LossCurve(
        start=_back(first, logs=logs),
        end=_back(last, logs=logs),
        lowest=_back(float(running.min()), logs=logs),
        fall=first - last,
        fall_se=_MEDIAN_SE * sd * math.sqrt(2 / ends) * inflation,
        given_back=last - float(running.min()),
        noise_sd=sd,
        spikes=_spikes(y, sd),
        late_rise=_rise(third),
        late_rise_se=sd * math.sqrt(12 / len(third)) * inflation,
        logs=logs,
    )


def _noise_sd(rest: FloatArray) -> float:
    size = np.abs(rest - np.median(rest))
    # MAD 0 means that more than half of the values tie, as rounded losses do; the mean deviation still sees the others.
    return _MAD * float(np.median(size)) or _MEAN_DEVIATION * float(np.mean(size))


def _spikes(y: FloatArray, sd: float) -> npt.NDArray[np.int64]:
    """Return points that stand out of what is before and of what is after: a steep fall or a lasting rise does not."""
    if sd <= 0:
        return np.empty(0, dtype=np.int64)
    out = []
    for i in range(1, len(y)):
        around = [part for part in (y[max(0, i - ENDS) : i], y[i + 1 : i + 1 + ENDS]) if part.size]
        if y[i] - max(float(np.median(part)) for part in around) > SPIKE_SD * sd:
            out.append(i)
    return np.array(out, dtype=np.int64)


def _rise(y: FloatArray) -> float:
    """Return the rise over a curve by Theil and Sen's median of slopes; long ones by medians of equal stretches."""
    parts = np.array_split(y, min(len(y), _MOST_PARTS))
    levels = np.array([np.median(part) for part in parts])
    i, j = np.triu_indices(levels.size, 1)
    return float(np.median((levels[j] - levels[i]) / (j - i))) * (levels.size - 1)


def _inflation(rest: FloatArray) -> float:
    """Return how much larger the error of a mean is than under independent noise, for first-order correlation."""
    centred = rest - rest.mean()
    total = float(centred @ centred)
    rho = float(centred[1:] @ centred[:-1]) / total if total > 0 else 0.0
    rho = min(max(rho, 0.0), _MOST_CORRELATED)
    return math.sqrt((1 + rho) / (1 - rho))


def _back(value: float, *, logs: bool) -> float:
    return math.exp(value) if logs else value
