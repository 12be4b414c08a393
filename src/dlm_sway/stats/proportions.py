"""Intervals for rates: one rate, and the difference of two rates on the same items."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import count, inside_unit


@dataclass(frozen=True, slots=True)
class Proportion:
    """A rate, or a difference of two, with its interval.

    Attributes:
        estimate: the rate or difference; None without trials.
        low: lower end of the two-sided interval.
        high: upper end.
        n: trials, or pairs.
        method: how the interval was made.
    """

    estimate: float | None
    low: float
    high: float
    n: int
    method: str


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Proportion:
    """Return a rate with the exact interval of Clopper and Pearson (1934): it covers at least `confidence`.

    Without trials the estimate is None and the interval [0, 1].

    Args:
        successes: between 0 and `trials`.
        trials: independent trials.
        confidence: of the two-sided interval; for a one-sided 95 % bound ask for 0.90.

    Raises:
        BadInputError: a count that is negative or no whole number, more successes than trials.
    """
    k, n, tail = _clopper_pearson_iv(successes, trials, confidence=confidence)
    low = float(special.betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Proportion(k / n if n else None, low, high, n, "Clopper-Pearson")


def _clopper_pearson_iv(successes: int, trials: int, *, confidence: float) -> tuple[int, int, float]:
    where = "clopper_pearson"
    k, n = count(successes, where=f"{where}: successes"), count(trials, where=f"{where}: trials")
    if k > n:
        raise BadInputError(f"{k} successes in {n} trials", where=where)
    return k, n, (1 - inside_unit(confidence, where=f"{where}: confidence")) / 2


def newcombe_paired(
    both: int, only_first: int, only_second: int, neither: int, *, confidence: float = 0.95
) -> Proportion:
    """Return the difference of two rates on the same items, first minus second, with Newcombe's interval.

    Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on paired
    data", method 10: Wilson intervals of the two rates, joined by the phi coefficient with continuity correction.
    It stays inside [-1, 1] and holds its level at small n and at rates of 0 and 1. Without pairs the estimate is
    None and the interval [-1, 1].

    Args:
        both: pairs where both succeed.
        only_first: pairs where only the first does.
        only_second: pairs where only the second does.
        neither: pairs where none does.
        confidence: of the two-sided interval; for a one-sided 95 % bound ask for 0.90.

    Raises:
        BadInputError: a count that is negative or no whole number.
    """
    (a, b, c, d), z = _newcombe_paired_iv(both, only_first, only_second, neither, confidence=confidence)
    n = a + b + c + d
    if n == 0:
        return Proportion(None, -1.0, 1.0, 0, "Newcombe paired")
    first, second = (a + b) / n, (a + c) / n
    low_1, high_1 = _wilson(first, n, z)
    low_2, high_2 = _wilson(second, n, z)
    phi = _corrected_phi(a, b, c, d)
    down = _joined(first - low_1, high_2 - second, phi)
    up = _joined(high_1 - first, second - low_2, phi)
    gap = first - second
    return Proportion(gap, max(-1.0, gap - down), min(1.0, gap + up), n, "Newcombe paired")


def _newcombe_paired_iv(
    both: int, only_first: int, only_second: int, neither: int, *, confidence: float
) -> tuple[tuple[int, int, int, int], float]:
    where = "newcombe_paired"
    counts = (
        count(both, where=f"{where}: both"),
        count(only_first, where=f"{where}: only_first"),
        count(only_second, where=f"{where}: only_second"),
        count(neither, where=f"{where}: neither"),
    )
    level = inside_unit(confidence, where=f"{where}: confidence")
    return counts, -float(special.ndtri((1 - level) / 2))


def _wilson(rate: float, n: int, z: float) -> tuple[float, float]:
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At a rate of 0 or 1 the ends are exact; rounding must not leave them a hair outside.
    return (0.0 if rate == 0 else centre - reach), (1.0 if rate == 1 else centre + reach)


def _corrected_phi(a: int, b: int, c: int, d: int) -> float:
    n = a + b + c + d
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    cross = a * d - b * c
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    return corrected / math.sqrt(product)


def _joined(left: float, right: float, phi: float) -> float:
    return math.sqrt(max(0.0, left**2 - 2 * phi * left * right + right**2))
