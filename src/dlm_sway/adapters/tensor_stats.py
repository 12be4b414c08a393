"""What one pass over a tensor's values tells, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dlm_sway.adapters.dtypes import Float32Array, is_readable
from dlm_sway.adapters.tensors import TensorFile


@dataclass(frozen=True, slots=True)
class TensorStats:
    """The sanity of a tensor's values.

    Attributes:
        n_nan: values that are NaN.
        n_inf: values that are infinite.
        is_zero: every value is zero; True for a tensor without values.
        norm: root sum of squares; NaN or inf when a value is.
    """

    n_nan: int = 0
    n_inf: int = 0
    is_zero: bool = True
    norm: float = 0.0

    @property
    def is_finite(self) -> bool:
        """Whether every value is finite."""
        return self.n_nan == 0 and self.n_inf == 0


def stats_of(file: TensorFile) -> dict[str, TensorStats]:
    """Return the statistics of every tensor whose format can be read, by name."""
    return {name: _stats(file.blocks(name)) for name, info in file.infos.items() if is_readable(info.dtype)}


def norm_of(blocks: Iterable[Float32Array]) -> float:
    """Return the root sum of squares of all values, accumulated in float64."""
    return math.sqrt(sum(_sum_of_squares(block) for block in blocks))


def _stats(blocks: Iterable[Float32Array]) -> TensorStats:
    n_nan = n_inf = 0
    is_zero, squares = True, 0.0
    for block in blocks:
        if not np.isfinite(block).all():
            n_nan += int(np.isnan(block).sum())
            n_inf += int(np.isinf(block).sum())
        is_zero = is_zero and not block.any()
        squares += _sum_of_squares(block)
    return TensorStats(n_nan, n_inf, is_zero, math.sqrt(squares))


def _sum_of_squares(block: Float32Array) -> float:
    wide = block.astype(np.float64)
    return float(np.dot(wide, wide))
