"""Does a value differ between groups more than within? An unbiased intraclass correlation with a permutation null.

ICC(1) = (MSB - MSW) / (MSB + (n0 - 1) MSW), the share of variance that lies between groups; 0 by chance and negative
when groups are more alike than chance would have it (Shrout and Fleiss 1979; n0 for unequal groups: Searle 1992).
A plain ratio of variances between and all is not 0 by chance but about (k - 1) / (n - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_vector, inside_unit

N_PERMUTATIONS: Final = 9_999
MAX_VALUES: Final = 100_000
"""Beyond this many, the answer is "no sensible sample"."""
_BATCH_ELEMENTS: Final = 1 << 20
_TIE: Final = 1e-9
_ROUNDING: Final = 1e-20
_LARGEST: Final = 1e6  # noncentrality beyond which a group is told apart for sure


@dataclass(frozen=True, slots=True, eq=False)
class GroupTest:
    """The share of variance between groups.

    Attributes:
        icc: ICC(1); None where all values are equal.
        low: lower end of its interval for these groups; None likewise.
        high: upper end; None likewise.
        p: one-sided p-value that it is positive, by permutation of the labels.
        chance_mean: its mean over permutations.
        chance_high: the 95 % quantile over permutations: what chance alone would seldom exceed.
        n_groups: k.
        n: values.
    """

    icc: float | None
    low: float | None
    high: float | None
    p: float
    chance_mean: float
    chance_high: float
    n_groups: int
    n: int


def group_test(
    values: npt.ArrayLike, groups: Sequence[str], *, confidence: float = 0.95, rng: np.random.Generator
) -> GroupTest:
    """Return how much of the spread of values lies between groups.

    p is exact in that the labels are exchangeable under the null: 9,999 permutations and the +1 rule. The interval
    takes the groups as they are and inverts the noncentral F (Steiger 2004, as for omega squared), so it assumes
    values that are roughly normal within groups; p does not.

    Args:
        values: float64[n].
        groups: n names, at least two of them different and at least one twice.
        confidence: of the two-sided interval.
        rng: of the permutations.

    Raises:
        BadInputError: lengths that differ, a value that is not finite, one group, or none with two values.
    """
    y, member, sizes = _group_test_iv(values, groups)
    tail = (1 - inside_unit(confidence, where="group_test: confidence")) / 2
    n, k = y.size, sizes.size
    centred = y - y.mean()
    total = float(centred @ centred)
    if total <= _ROUNDING * float(y @ y) or total == 0:
        return GroupTest(None, None, None, 1.0, 0.0, 0.0, k, n)
    between = _between(centred[None, :], member, sizes)[0]
    n0 = (n - float(sizes @ sizes) / n) / (k - 1)
    drawn = _permuted(centred, member, sizes, rng=rng)
    chance = _icc(drawn, total, n, k, n0)
    low, high = (_icc_of(_noncentrality(_f(between, total, n, k), n, k, p=q), k, n0) for q in (1 - tail, tail))
    return GroupTest(
        icc=float(_icc(np.array([between]), total, n, k, n0)[0]),
        low=low,
        high=high,
        p=(1 + int(np.sum(drawn >= between * (1 - _TIE)))) / (N_PERMUTATIONS + 1),
        chance_mean=float(chance.mean()),
        chance_high=float(np.quantile(chance, 0.95)),
        n_groups=k,
        n=n,
    )


def values_needed(icc: float, *, n_groups: int, minimum: float, alpha: float = 0.05) -> int:
    """Return with how many values in all it would be decided whether the share is at least `minimum`.

    The number at which an estimate as large as this one is significant (where it is at least `minimum`) or has an
    interval wholly under `minimum` (where it is not); more than 100,000 is answered as 100,001.

    Args:
        icc: the estimate.
        n_groups: k, of equal size.
        minimum: the smallest share that counts.
        alpha: level of the one-sided test, and of the two-sided interval.
    """
    if not icc < 1:
        return n_groups + 1
    decided = _significant if icc >= minimum else _surely_under
    low, high = n_groups, n_groups + 1
    while not decided(icc, high, n_groups, minimum, alpha):
        low, high = high, 2 * high
        if high > MAX_VALUES:
            return MAX_VALUES + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(icc, middle, n_groups, minimum, alpha) else (middle, high)
    return high


def _significant(icc: float, n: int, k: int, minimum: float, alpha: float) -> bool:
    del minimum
    return float(special.fdtrc(k - 1, n - k, _f_of(icc, n, k))) <= alpha


def _surely_under(icc: float, n: int, k: int, minimum: float, alpha: float) -> bool:
    return _icc_of(_noncentrality(_f_of(icc, n, k), n, k, p=alpha / 2), k, n / k) < minimum


def _f_of(icc: float, n: int, k: int) -> float:
    """Return the F at which groups of equal size have this ICC."""
    return max(0.0, 1 + n / k * icc / (1 - icc))


def _between(rows: FloatArray, member: npt.NDArray[np.int64], sizes: FloatArray) -> FloatArray:
    """Return the sum of squares between groups of each row of centred values, f64[B, n] to f64[B]."""
    sums = rows @ np.eye(sizes.size)[member]  # [B, k]
    return np.asarray((sums**2 / sizes).sum(axis=1))


def _permuted(
    centred: FloatArray, member: npt.NDArray[np.int64], sizes: FloatArray, *, rng: np.random.Generator
) -> FloatArray:
    step = max(1, _BATCH_ELEMENTS // centred.size)
    parts = []
    for start in range(0, N_PERMUTATIONS, step):
        rows = np.tile(centred, (min(step, N_PERMUTATIONS - start), 1))
        parts.append(_between(rng.permuted(rows, axis=1), member, sizes))
    return np.concatenate(parts)


def _icc(between: FloatArray, total: float, n: int, k: int, n0: float) -> FloatArray:
    msb, msw = between / (k - 1), np.maximum(total - between, 0.0) / (n - k)
    return np.asarray((msb - msw) / (msb + (n0 - 1) * msw))


def _f(between: float, total: float, n: int, k: int) -> float:
    within = (total - between) / (n - k)
    return math.inf if within <= _TIE * total / n else between / (k - 1) / within


def _noncentrality(f: float, n: int, k: int, *, p: float) -> float:
    """Return the noncentrality at which `f` has cumulative probability `p`; 0 where none has."""
    if math.isinf(f):
        return math.inf

    def gap(lam: float) -> float:
        return float(special.ncfdtr(k - 1, n - k, lam, f)) - p

    if gap(0.0) <= 0:
        return 0.0
    top = 1.0
    while gap(top) > 0 and top < _LARGEST:
        top *= 2
    return float(optimize.brentq(gap, 0.0, top)) if gap(top) <= 0 else top


def _icc_of(lam: float, k: int, n0: float) -> float:
    ratio = lam / (k - 1)
    return 1.0 if math.isinf(ratio) else ratio / (n0 + ratio)


def _group_test_iv(
    values: npt.ArrayLike, groups: Sequence[str]
) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
    y = finite_vector(values, where="group_test: values")
    if len(groups) != y.size:
        raise BadInputError(f"{y.size} values and {len(groups)} labels", where="group_test")
    index: dict[str, int] = {}
    member = np.array([index.setdefault(name, len(index)) for name in groups], dtype=np.int64)
    if not 1 < len(index) < y.size:
        raise BadInputError(f"{y.size} values in {len(index)} groups cannot be compared", where="group_test: groups")
    return y, member, np.bincount(member).astype(np.float64)
