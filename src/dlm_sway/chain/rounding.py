"""What storing weights in a format does to them: the values that it keeps, and how far off these may be."""

from __future__ import annotations

from typing import Final

import numpy as np

from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.chain.margins import bits_of

NARROW: Final = {"BF16": "bf16", "F16": "fp16"}
_NF4: Final = np.array(
    (
        *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105004, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
    ),
    dtype=np.float32,
)
_BLOCK: Final = 64
_ROOM: Final = {"F32": 1e-6, "F64": 1e-6, "BF16": 0.01, "F16": 0.002, "Q8_0": 0.02}
_COARSE_ROOM: Final = 0.2
_TERNARY: Final = "TQ"
_FEWEST_BITS: Final = 2.0


def stored_as(x: Float32Array, dtype: str) -> Float32Array | None:
    """Return values as a format stores them, or None where sway cannot write it."""
    if dtype in ("F32", "F64"):
        return x
    if dtype in NARROW:
        return rounded(x, NARROW[dtype])
    try:
        import gguf
        from gguf.quants import dequantize, quantize

        kind = gguf.GGMLQuantizationType[dtype]
        return np.asarray(dequantize(quantize(x, kind), kind), dtype=np.float32)
    except (ImportError, KeyError, NotImplementedError, ValueError):
        return None


def rounded(x: Float32Array, dtype: str) -> Float32Array:
    """Return values as a 16-bit dtype stores them; ties to even."""
    if dtype == "fp16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    up = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    return ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)


def nf4_rounded(x: Float32Array) -> Float32Array:
    """Return values as NF4 stores them in blocks of 64 (Dettmers et al. 2023), constants of blocks not quantised."""
    flat = x.reshape(-1)
    padded = np.zeros(-(-flat.size // _BLOCK) * _BLOCK, dtype=np.float32)
    padded[: flat.size] = flat
    blocks = padded.reshape(-1, _BLOCK)
    size = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.float32(1e-30))
    middle = (_NF4[1:] + _NF4[:-1]) / 2
    out = _NF4[np.searchsorted(middle, blocks / size)] * size
    return np.asarray(out.reshape(-1)[: flat.size].reshape(x.shape), dtype=np.float32)


def room_of(dtype: str) -> float | None:
    """Return the relative distance that rounding alone may make; None where it may make any.

    No b bits keep Gaussian values nearer than 2^-b (Shannon's rate-distortion bound); formats of 2 and 3 bits come to
    less than twice that, of 4 to about 0.1. Below 2 bits, and with ternary values, what is left says little of what was
    stored: up to 0.8 apart.
    """
    if dtype in _ROOM:
        return _ROOM[dtype]
    bits = bits_of(dtype)
    if bits is None:
        return _COARSE_ROOM
    if bits < _FEWEST_BITS or dtype.startswith(_TERNARY):
        return None
    return float(max(_COARSE_ROOM, 2 * 2**-bits))
