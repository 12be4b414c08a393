"""Tests on the signs of paired differences: sign flips for gains, McNemar for right and wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.stats._inputs import FloatArray, count, finite_vector

MAX_EXACT: Final = 16
"""Values up to which all 2^n flips are listed."""
N_FLIPS: Final = 99_999

_BATCH_ELEMENTS: Final = 1 << 21
# Sums of the same numbers in another order differ by rounding; such ties must count against us.
_TIE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class SignFlip:
    """The sign-flip test of a positive sum.

    Attributes:
        p: one-sided p-value for a positive centre.
        exact: whether all flips were listed.
        n_flips: flips compared, the identity not counted where they are random.
    """

    p: float
    exact: bool
    n_flips: int


def sign_flip(values: npt.ArrayLike, *, rng: np.random.Generator) -> SignFlip:
    """Return the one-sided p-value of `sum(values)` among sums with flipped signs (null N5).

    Under the null hypothesis the values are symmetric about 0 (Fisher 1935). Up to 16 values all 2^n flips are
    listed and p is exact; beyond, 99,999 random flips and the +1 rule keep it valid. Ties count against us; all
    zeros give p = 1. The smallest possible p is 2^-n, so fewer than 5 values cannot reach 0.05.

    Args:
        values: f64[n], n >= 1, independent units (clusters).
        rng: used beyond 16 values only.

    Raises:
        BadInputError: empty, or a value that is not finite.
    """
    vector = _sign_flip_iv(values)
    threshold = float(vector.sum()) - _TIE * float(np.abs(vector).sum())
    if vector.size <= MAX_EXACT:
        sums = _all_signed_sums(vector)
        return SignFlip(float(np.mean(sums >= threshold)), exact=True, n_flips=sums.size)
    reached = _count_random_flips(vector, threshold, rng=rng)
    return SignFlip((1 + reached) / (1 + N_FLIPS), exact=False, n_flips=N_FLIPS)


def _sign_flip_iv(values: npt.ArrayLike) -> FloatArray:
    return finite_vector(values, where="sign_flip: values")


def _all_signed_sums(values: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _count_random_flips(values: FloatArray, threshold: float, *, rng: np.random.Generator) -> int:
    step = max(1, _BATCH_ELEMENTS // values.size)
    reached = 0
    for start in range(0, N_FLIPS, step):
        rows = min(step, N_FLIPS - start)
        kept = rng.integers(0, 2, size=(rows, values.size), dtype=np.int8)
        # sum of s * v with s in {-1, 1} is twice the kept part minus the whole.
        sums = 2 * (kept @ values) - values.sum()
        reached += int(np.sum(sums >= threshold))
    return reached


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p-value that discordant pairs fall either way alike.

    `min(1, 2 * P(X <= min(b, c)))`, X binomial(b + c, 1/2) (McNemar 1947, exact form). Without discordant pairs
    nothing speaks for a change, and p is 1.

    Args:
        b: pairs right in the first and wrong in the second.
        c: pairs wrong in the first and right in the second.

    Raises:
        BadInputError: a count that is negative or no whole number.
    """
    b, c = _mcnemar_iv(b, c)
    return min(1.0, 2 * float(special.bdtr(min(b, c), b + c, 0.5)))


def _mcnemar_iv(b: int, c: int) -> tuple[int, int]:
    return count(b, where="mcnemar: b"), count(c, where="mcnemar: c")
