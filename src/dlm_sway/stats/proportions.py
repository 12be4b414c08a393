"""Intervals for rates: one rate, and the difference of two rates on the same items.

Counts are of what varies on its own. Where items do so only by cluster, `shared_counts` counts clusters.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import count, inside_unit, not_negative

K = TypeVar("K", bound=Hashable)


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


def shared_counts(kinds: Sequence[K], clusters: Sequence[str]) -> dict[K, float]:
    """Return how many clusters are of each kind; one whose items differ is shared out among their kinds.

    The counts add up to the number of clusters, and with each item its own cluster they are those of the items. As
    counts of `clopper_pearson` they keep its level for the mean over clusters: a cluster's share varies no more than
    one trial of the same mean does (docs/statistics/proportions.md has the measurement).

    Args:
        kinds: n, what became of each item.
        clusters: n names of what varies together.

    Raises:
        BadInputError: lengths that differ.
    """
    if len(kinds) != len(clusters):
        raise BadInputError(f"{len(kinds)} items and {len(clusters)} clusters", where="shared_counts")
    size: dict[str, int] = {}
    for cluster in clusters:
        size[cluster] = size.get(cluster, 0) + 1
    # Fractions, so that a cluster of thirds is one and not a hair under it.
    shares: dict[K, Fraction] = {}
    for kind, cluster in zip(kinds, clusters, strict=True):
        shares[kind] = shares.get(kind, Fraction(0)) + Fraction(1, size[cluster])
    return {kind: float(share) for kind, share in shares.items()}


def clopper_pearson(successes: float, trials: int, *, confidence: float = 0.95) -> Proportion:
    """Return a rate with the exact interval of Clopper and Pearson (1934): it covers at least `confidence`.

    Without trials the estimate is None and the interval [0, 1].

    Args:
        successes: between 0 and `trials`; with a fraction where clusters are shared out.
        trials: independent trials.
        confidence: of the two-sided interval; for a one-sided 95 % bound ask for 0.90.

    Raises:
        BadInputError: a count that is negative, trials that are no whole number, more successes than trials.
    """
    k, n, tail = _clopper_pearson_iv(successes, trials, confidence=confidence)
    low = float(special.betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Proportion(k / n if n else None, low, high, n, "Clopper-Pearson")


def _clopper_pearson_iv(successes: float, trials: int, *, confidence: float) -> tuple[float, int, float]:
    where = "clopper_pearson"
    k, n = not_negative(successes, where=f"{where}: successes"), count(trials, where=f"{where}: trials")
    if k > n:
        raise BadInputError(f"{k:g} successes in {n} trials", where=where)
    return k, n, (1 - inside_unit(confidence, where=f"{where}: confidence")) / 2


def newcombe_paired(
    both: float, only_first: float, only_second: float, neither: float, *, confidence: float = 0.95
) -> Proportion:
    """Return the difference of two rates on the same items, first minus second, with Newcombe's interval.

    Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on paired
    data", method 10: Wilson intervals of the two rates, joined by the phi coefficient with continuity correction.
    It stays inside [-1, 1] and holds its level at small n and at rates of 0 and 1. Without pairs the estimate is
    None and the interval [-1, 1].

    Args:
        both: pairs where both succeed; like the others with a fraction where clusters are shared out.
        only_first: pairs where only the first does.
        only_second: pairs where only the second does.
        neither: pairs where none does.
        confidence: of the two-sided interval; for a one-sided 95 % bound ask for 0.90.

    Raises:
        BadInputError: a count that is negative or not finite.
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
    return Proportion(gap, max(-1.0, gap - down), min(1.0, gap + up), round(n), "Newcombe paired")


def _newcombe_paired_iv(
    both: float, only_first: float, only_second: float, neither: float, *, confidence: float
) -> tuple[tuple[float, float, float, float], float]:
    where = "newcombe_paired"
    counts = (
        not_negative(both, where=f"{where}: both"),
        not_negative(only_first, where=f"{where}: only_first"),
        not_negative(only_second, where=f"{where}: only_second"),
        not_negative(neither, where=f"{where}: neither"),
    )
    level = inside_unit(confidence, where=f"{where}: confidence")
    return counts, -float(special.ndtri((1 - level) / 2))


def _wilson(rate: float, n: float, z: float) -> tuple[float, float]:
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At a rate of 0 or 1 the ends are exact; rounding must not leave them a hair outside.
    return (0.0 if rate == 0 else centre - reach), (1.0 if rate == 1 else centre + reach)


def _corrected_phi(a: float, b: float, c: float, d: float) -> float:
    n = a + b + c + d
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    cross = a * d - b * c
    corrected = max(cross - n / 2, 0.0) if cross > 0 else cross
    return corrected / math.sqrt(product)


def _joined(left: float, right: float, phi: float) -> float:
    return math.sqrt(max(0.0, left**2 - 2 * phi * left * right + right**2))
