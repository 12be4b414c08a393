"""Norms and singular values of delta W = s B A from its factors, without ever forming the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.core.determinism import stream

Float64Array = npt.NDArray[np.float64]
_ROWS: Final = 4096
_TINY: Final = 32


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The singular values of a low-rank change, and what they sum up to.

    Attributes:
        singular_values: float64[k], descending.
        frobenius: their root sum of squares, ||delta W||_F.
        spectral: the largest, ||delta W||_2.
        effective_rank: exp of the entropy of the singular values normalised to sum 1, between 1 and k (Roy and
            Vetterli 2007, "The effective rank: a measure of effective dimensionality"); 0 for a zero matrix.
    """

    singular_values: Float64Array
    frobenius: float
    spectral: float
    effective_rank: float


def output_factor(b: Float32Array) -> Float64Array:
    """Return R of B = Q R, float64[min(out, r), r].

    Args:
        b: [out, r], or a convolution's [out, r, 1, ...].
    """
    return _triangular(b.reshape(b.shape[0], -1))


def input_factor(a: Float32Array) -> Float64Array:
    """Return R of A^T = Q R, float64[min(in, r), r].

    Args:
        a: [r, in], or a convolution's [r, in, height, width], read as [r, in * height * width].
    """
    return _triangular(a.reshape(a.shape[0], -1).T)


def spectrum(output: Float64Array, inputs: Float64Array, *, scale: float) -> Spectrum:
    """Return the spectrum of `scale` B A.

    The singular values of B A are those of R_B R_A^T, because both Q have orthonormal columns; r by r instead of
    out by in.

    Args:
        output: R of B, from `output_factor`.
        inputs: R of A^T, from `input_factor`.
        scale: what multiplies the product; its sign does not matter.

    Raises:
        ValueError: the factors have different ranks.
        numpy.linalg.LinAlgError: a value is not finite.
    """
    values = np.linalg.svd(output @ inputs.T, compute_uv=False).astype(np.float64) * abs(scale)
    total = float(values.sum())
    if total == 0.0:
        return Spectrum(values, 0.0, 0.0, 0.0)
    share = values[values > 0.0] / total
    entropy = -float(np.sum(share * np.log(share)))
    return Spectrum(values, float(np.linalg.norm(values)), float(values[0]), float(np.exp(entropy)))


def spectral_norm(matrix: Float32Array) -> float:
    """Return the largest singular value of a finite matrix, by Lanczos steps (ARPACK) where it is not tiny."""
    largest = float(np.abs(matrix).max(initial=0.0))
    if min(matrix.shape) <= _TINY or largest == 0.0:
        return float(np.linalg.norm(matrix.astype(np.float64), 2)) if largest else 0.0
    from scipy.sparse.linalg import svds

    start = stream(0, "spectral norm").standard_normal(min(matrix.shape)).astype(matrix.dtype)
    unit = matrix / np.float32(largest)  # squares of very large or small values are out of float32's range
    return largest * float(svds(unit, k=1, v0=start, return_singular_vectors=False)[0])


def _triangular(tall: Float32Array) -> Float64Array:
    # Row blocks, each stacked under the R so far (a sequential TSQR): float64 where it is cheap, at the memory of
    # one block instead of a float64 copy of an embedding-sized factor.
    r: Float64Array = np.empty((0, tall.shape[1]))
    for first in range(0, tall.shape[0], _ROWS):
        r = np.asarray(np.linalg.qr(np.vstack([r, tall[first : first + _ROWS]]), mode="r"))
    return r
