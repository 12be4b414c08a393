"""Many questions at once: what remains significant when each of them had its chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import Alternative, FloatArray, finite_vector, one_of, usable


@dataclass(frozen=True, slots=True, eq=False)
class MaxT:
    """The family of a suite, adjusted.

    Attributes:
        p_adjusted: f64[K], step-down maxT p-values; never below `p_raw`.
        p_raw: f64[K], the exact rank p-value of each row on its own.
        standardised: f64[K, m + 1], `(x - median) / MAD` of each row, turned so that large is extreme.
    """

    p_adjusted: FloatArray
    p_raw: FloatArray
    standardised: FloatArray


def max_t(values: npt.ArrayLike, *, alternative: Alternative = "greater") -> MaxT:
    """Return p-values that control the family-wise error over rows which share their draws.

    Westfall and Young (1993), algorithm 4.1 (step-down maxT): at each step the real value is compared with the
    maximum over the rows not yet tested, draw by draw, so dependence between rows is used and not feared. Centre
    and scale come from the pooled m + 1 values of a row; they are symmetric in the columns, so exchangeability and
    with it exactness survive, whatever the scale is. Ties count against us. A row whose MAD is 0 is scaled by its
    mean absolute deviation; a constant row becomes zeros, and its p is 1.

    Args:
        values: f64[K, m + 1]; column 0 is the real adapter, column j the null draw j, the same draw in every row.
        alternative: which side is extreme, for all rows; negate a row that points the other way.

    Raises:
        BadInputError: no null column, or a row (named by its index) with a value that is not finite.
    """
    rows = _max_t_iv(values, alternative=alternative)
    signed = rows if alternative == "greater" else -rows
    standardised = _standardise(signed)
    order = np.argsort(-standardised[:, 0], kind="stable")
    # Row i of `remaining` is the maximum over the rows still in play at step i: those ranked i or later.
    remaining = np.maximum.accumulate(standardised[order][::-1], axis=0)[::-1]
    stepwise = np.mean(remaining >= standardised[order, :1], axis=1)
    adjusted = np.empty(len(rows))
    adjusted[order] = np.maximum.accumulate(stepwise)
    return MaxT(adjusted, np.mean(signed >= signed[:, :1], axis=1), standardised)


def _max_t_iv(values: npt.ArrayLike, *, alternative: str) -> FloatArray:
    one_of(alternative, ("greater", "less"), where="max_t: alternative")
    rows = np.array(values, dtype=np.float64)
    if rows.ndim != 2:  # noqa: PLR2004 (rows and columns)
        raise BadInputError(f"expected rows and columns, got shape {rows.shape}", where="max_t: values")
    if rows.shape[1] < 2:  # noqa: PLR2004 (the real column and one draw)
        raise BadInputError("no null draws: needs the real column and at least one more", where="max_t: values")
    bad = np.flatnonzero(~usable(rows).all(axis=1))
    if bad.size:
        names = ", ".join(str(row) for row in bad)
        raise BadInputError(f"rows with NaN or infinities: {names}", where="max_t: values", remedy="leave them out")
    return rows


def _standardise(rows: FloatArray) -> FloatArray:
    centred = rows - np.median(rows, axis=1, keepdims=True)
    size = np.abs(centred)
    mad = np.median(size, axis=1, keepdims=True)
    # MAD 0 means that more than half of the values tie; the mean absolute deviation is as symmetric in the columns.
    scale = np.where(mad > 0, mad, np.mean(size, axis=1, keepdims=True))
    with np.errstate(over="ignore"):
        standardised = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
    if not np.isfinite(standardised).all():
        raise BadInputError("values too far apart to standardise in float64", where="max_t: values")
    return standardised


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """Return p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995), in the order given.

    For independent or positively dependent tests, such as the same question over several adapters; inside a suite
    use `max_t`. An empty input gives an empty output.

    Args:
        p: f64[n], each in [0, 1].

    Raises:
        BadInputError: a value outside [0, 1], or NaN.
    """
    raw = _benjamini_hochberg_iv(p)
    n = raw.size
    order = np.argsort(raw)
    scaled = raw[order] * n / np.arange(1, n + 1)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def _benjamini_hochberg_iv(p: npt.ArrayLike) -> FloatArray:
    raw = finite_vector(p, where="benjamini_hochberg: p", at_least=0)
    outside = np.flatnonzero((raw < 0) | (raw > 1))
    if outside.size:
        raise BadInputError(f"value {outside[0]} is {raw[outside[0]]}, no probability", where="benjamini_hochberg: p")
    return raw
