"""Looking at the data on the way and stopping when it is decided, at the level that was promised.

A control corpus is read in stages; at each stage the bound is compared with the margin. Looking several times at
the usual quantile would err more often than alpha, so every look uses one larger critical value (Pocock 1977).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_number, finite_vector, inside_unit

_FRACTIONS: Final = "pocock_critical: fractions"
_FAR: Final = -8.0
"""Standard score below which the density of a walk that has not stopped is nil in float64 terms."""
_SMALLEST_STEP: Final = 1e-3
"""Smallest step between looks, in the later one's fraction: a closer look tells nothing new, and costs a finer grid."""


def pocock_critical(fractions: Sequence[float], *, alpha: float = 0.05) -> float:
    """Return the constant z with `P(max_k Z_k > z) = alpha`, one-sided, over looks at these information fractions.

    Z_k is a standardised Brownian motion at the fractions (Pocock 1977, for any spacing). The density of walks that
    have not crossed is carried from look to look by Gauss-Legendre quadrature (Armitage, McPherson and Rowe 1969;
    Jennison and Turnbull 2000, chapter 19): deterministic, accurate to better than 1e-6. Looks may be left out
    later without raising the error.

    Args:
        fractions: increasing and positive; only their ratios matter, so cluster counts at the looks will do. A step
            under 0.1 % counts as 0.1 %, which raises z by less than 0.01.
        alpha: level over all looks together.

    Raises:
        BadInputError: no look, fractions that do not increase, a level outside (0, 1).
    """
    times = _pocock_critical_iv(fractions, alpha)
    single = -float(special.ndtri(alpha))
    if times.size == 1:
        return single
    from scipy import optimize

    # Between one look's quantile and Bonferroni's over all of them.
    largest = -float(special.ndtri(alpha / times.size))
    return float(optimize.brentq(lambda z: crossing_probability(times, z) - alpha, single, largest, xtol=1e-9))


def _pocock_critical_iv(fractions: Sequence[float], alpha: float) -> FloatArray:
    inside_unit(alpha, where="pocock_critical: alpha")
    times = finite_vector(fractions, where=_FRACTIONS)
    if times[0] <= 0 or np.any(np.diff(times) <= 0):
        raise BadInputError(f"must be positive and rise at each look, got {times.tolist()}", where=_FRACTIONS)
    apart = [times[0]]
    for time in times[1:]:
        apart.append(max(time, apart[-1] / (1 - _SMALLEST_STEP)))
    return np.array(apart)


def crossing_probability(times: FloatArray, critical: float) -> float:
    """Return the probability that a standardised Brownian motion exceeds `critical` at one of `times` at least.

    Args:
        times: f64[K], increasing and positive.
        critical: the constant boundary, in standard scores.
    """
    steps = np.diff(times)
    nodes, weights = _grid(float(np.sqrt(steps / times[1:]).min()) if steps.size else 1.0, critical)
    # u is the motion itself, not its standard score: its increments are independent.
    u, mass = nodes * math.sqrt(times[0]), weights * _normal_density(nodes)
    for step, time in zip(steps, times[1:], strict=True):
        ahead = nodes * math.sqrt(time)
        kernel = _normal_density((ahead[:, None] - u[None, :]) / math.sqrt(step)) * math.sqrt(time / step)
        u, mass = ahead, weights * (kernel @ mass)
    return 1.0 - float(mass.sum())


def _grid(narrowest: float, critical: float) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights between the far end and the boundary, finer than the narrowest kernel."""
    length = critical - _FAR
    nodes, weights = special.roots_legendre(max(48, math.ceil(4 * length / narrowest)))
    return 0.5 * length * (nodes + 1) + _FAR, 0.5 * length * weights


def _normal_density(x: FloatArray) -> FloatArray:
    density: FloatArray = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    return density


def small_sample(critical: float, df: float) -> float:
    """Return the t quantile with the tail probability that `critical` has under the normal distribution.

    `t_{df}^{-1}(Phi(critical))`: the usual step from z to t in group-sequential designs (Jennison and Turnbull
    2000, 3.8), close to exact when the first look has 30 clusters; docs/statistics/sequential.md has the simulation.

    Args:
        critical: a normal critical value, at most 37 in size (beyond, its tail has no float64).
        df: degrees of freedom, at least 1: clusters minus one.

    Raises:
        BadInputError: a critical value that is not finite or too large, degrees of freedom under 1.
    """
    z, freedom = _small_sample_iv(critical, df)
    return -math.copysign(1.0, z) * float(special.stdtrit(freedom, float(special.ndtr(-abs(z)))))


def _small_sample_iv(critical: float, df: float) -> tuple[float, float]:
    z = finite_number(critical, where="small_sample: critical")
    if abs(z) > 37:  # noqa: PLR2004 (the last size at which the normal tail is not 0 in float64)
        raise BadInputError(f"must be at most 37 in size, got {z}", where="small_sample: critical")
    freedom = finite_number(df, where="small_sample: df")
    if freedom < 1:
        raise BadInputError(f"must be at least 1, got {freedom}", where="small_sample: df")
    return z, freedom
