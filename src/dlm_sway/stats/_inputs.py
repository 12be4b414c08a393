"""What every statistic asks of its input, and the one wording for refusing it."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Alternative: TypeAlias = Literal["greater", "less"]

LARGEST: Final = 1e75
"""Largest size of a number that is taken: its cube still has a float64, so no sum of moments overflows."""
_NOT_FINITE_REMEDY: Final = "drop or repair that item before testing; a statistic over it would mean nothing"


def usable(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which values are numbers of a size that moments can be taken of; NaN and infinities are not."""
    return np.abs(values) <= LARGEST


def finite_vector(values: npt.ArrayLike, *, where: str, at_least: int = 1) -> FloatArray:
    """Return `values` as a read-only f64[n] copy.

    Raises:
        BadInputError: not one-dimensional, shorter than `at_least`, or with a value that is not finite
            (or beyond 1e75, which no log-prob is).
    """
    vector = np.array(values, dtype=np.float64)
    if vector.ndim != 1:
        raise BadInputError(f"expected one dimension, got shape {vector.shape}", where=where)
    if vector.size < at_least:
        raise BadInputError(f"needs at least {at_least} values, got {vector.size}", where=where)
    bad = np.flatnonzero(~usable(vector))
    if bad.size:
        first = int(bad[0])
        raise BadInputError(f"value {first} is {vector[first]}", where=where, remedy=_NOT_FINITE_REMEDY)
    vector.flags.writeable = False
    return vector


def finite_number(value: float, *, where: str) -> float:
    """Return `value` as a float.

    Raises:
        BadInputError: it is NaN or infinite.
    """
    number = float(value)
    if not (math.isfinite(number) and abs(number) <= LARGEST):
        raise BadInputError(f"is {number}", where=where, remedy=_NOT_FINITE_REMEDY)
    return number


def not_negative(value: float, *, where: str) -> float:
    """Return `value` as a float.

    Raises:
        BadInputError: it is negative, NaN or infinite.
    """
    number = finite_number(value, where=where)
    if number < 0:
        raise BadInputError(f"must not be negative, got {number}", where=where)
    return number


def inside_unit(value: float, *, where: str) -> float:
    """Return `value` as a float strictly between 0 and 1: a level, a confidence, a power.

    Raises:
        BadInputError: it is outside.
    """
    number = float(value)
    if not 0 < number < 1:
        raise BadInputError(f"must lie strictly between 0 and 1, got {number}", where=where)
    return number


def count(value: int, *, where: str, at_least: int = 0) -> int:
    """Return `value` as an int.

    Raises:
        BadInputError: it is not a whole number, or below `at_least`.
    """
    if value != int(value) or value < at_least:
        raise BadInputError(f"must be a whole number of at least {at_least}, got {value}", where=where)
    return int(value)


def one_of(value: str, allowed: tuple[str, ...], *, where: str) -> None:
    """Check an option that is a word.

    Raises:
        BadInputError: it is none of `allowed`.
    """
    if value not in allowed:
        raise BadInputError(f"must be one of {', '.join(allowed)}, got {value!r}", where=where)
