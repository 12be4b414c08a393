"""Number formats of safetensors files, decoded to float32 with numpy alone."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
"""Bits an element; formats that are absent here are listed but not read."""

_RAW: Final = {
    "BOOL": "u1", "U8": "u1", "I8": "i1", "F8_E4M3": "u1", "F8_E5M2": "u1",
    "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "<u2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip


def is_readable(dtype: str) -> bool:
    """Return whether `decode` knows the format."""
    return dtype in _RAW


def storage_dtype(dtype: str) -> np.dtype[np.generic]:
    """Return the numpy type in which the bytes of `dtype` are read before `decode`."""
    return np.dtype(_RAW[dtype])


def decode(raw: npt.NDArray[np.generic], dtype: str) -> Float32Array:
    """Return the values of `raw`, read as `storage_dtype(dtype)`, as float32 of the same shape.

    bfloat16 is the upper half of a float32, and F8_E5M2 the upper byte of a float16, so both decode by a shift;
    F8_E4M3 (no infinities, one NaN pattern a sign: Micikevicius et al. 2022) goes through a table of its 256 values.
    A float64 beyond the range of float32 becomes infinite.
    """
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F8_E5M2":
        return (raw.astype(np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)
    if dtype == "F8_E4M3":
        return _e4m3_values()[raw.astype(np.intp)]
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.astype(np.float32, copy=False)


def _e4m3_values() -> Float32Array:
    code = np.arange(256)
    sign = np.where(code & 0x80, -1.0, 1.0)
    exponent, mantissa = (code >> 3) & 0xF, (code & 0x7) / 8.0
    magnitude = np.where(exponent == 0, mantissa * 2.0**-6, (1.0 + mantissa) * 2.0 ** (exponent - 7.0))
    values = (sign * magnitude).astype(np.float32)
    values[[0x7F, 0xFF]] = np.nan
    return values
