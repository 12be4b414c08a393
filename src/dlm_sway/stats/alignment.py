"""The law of a linear statistic under rotation nulls: in closed form, and by draws that need no forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, count, finite_vector, not_negative

_WIDE = 2  # a block of k rows of at most so many times k is drawn whole


def rotation_sd(spectra: Sequence[npt.ArrayLike], d_out: Sequence[int]) -> FloatArray:
    """Return the standard deviation of <H, Q> for each module, `||H||_F / sqrt(d_out)`, f64[M]; the mean is 0.

    Q is uniform on the d_out x k matrices with orthonormal columns, so that its entries have variance 1 / d_out and are
    uncorrelated (Meckes 2019, "The random matrix theory of the classical compact groups", 2.2). Modules are
    independent: variances add.

    Args:
        spectra: singular values of H of each module.
        d_out: rows of H of each module.

    Raises:
        BadInputError: lengths that differ, values that are negative or not finite, more values than rows.
    """
    checked, rows = _rotation_iv(spectra, d_out, where="rotation_sd")
    return np.array([np.sqrt(float(s @ s) / d) for s, d in zip(checked, rows, strict=True)])


def rotation_draws(
    spectra: Sequence[npt.ArrayLike], d_out: Sequence[int], *, n_draws: int, rng: np.random.Generator
) -> FloatArray:
    """Return draws of <H, Q> for each module, f64[M, n_draws].

    The law of Q does not change when it is turned from either side, so <H, Q> has that of sum_i s_i W_ii, with s the
    singular values of H and W the upper k x k block of Q. With Z Gaussian and Z^T Z = L L^T, Q = Z L^-T (Mezzadri
    2007); the rows of Z below the block enter through their Wishart matrix alone, which Bartlett's factor draws.

    Args:
        spectra: f64[k] each, singular values of H.
        d_out: rows of each H, at least k.
        n_draws: number of draws.
        rng: for all of them.

    Raises:
        BadInputError: as for `rotation_sd`.
    """
    checked, rows = _rotation_iv(spectra, d_out, where="rotation_draws")
    n = count(n_draws, where="rotation_draws: n_draws", at_least=1)
    return np.stack([_diagonals(s.size, d, n, rng) @ s for s, d in zip(checked, rows, strict=True)])


def _rotation_iv(
    spectra: Sequence[npt.ArrayLike], d_out: Sequence[int], *, where: str
) -> tuple[list[FloatArray], list[int]]:
    rows = [count(d, where=f"{where}: d_out", at_least=1) for d in d_out]
    if not rows or len(spectra) != len(rows):
        raise BadInputError(f"{len(spectra)} spectra of {len(rows)} modules", where=where)
    checked = [finite_vector(s, where=f"{where}: spectra") for s in spectra]
    for s, d in zip(checked, rows, strict=True):
        not_negative(float(s.min()), where=f"{where}: spectra")
        if s.size > d:
            raise BadInputError(f"{s.size} singular values of {d} rows", where=where)
    return checked, rows


def _diagonals(k: int, d: int, n: int, rng: np.random.Generator) -> FloatArray:
    """Return f64[n, k]: diagonals of the upper block of a Haar matrix with d rows and k columns."""
    if d <= _WIDE * k:
        q, upper = np.linalg.qr(rng.standard_normal((n, d, k)))
        signs = np.where(np.diagonal(upper, axis1=1, axis2=2) < 0, -1.0, 1.0)
        whole: FloatArray = np.diagonal(q, axis1=1, axis2=2) * signs
        return whole
    top = rng.standard_normal((n, k, k))
    below = np.tril(rng.standard_normal((n, k, k)), -1)
    below[:, np.arange(k), np.arange(k)] = np.sqrt(rng.chisquare(d - k - np.arange(k), size=(n, k)))
    lower = np.linalg.cholesky(top.transpose(0, 2, 1) @ top + below @ below.transpose(0, 2, 1))
    block = np.linalg.solve(lower, top.transpose(0, 2, 1))  # W^T
    diagonal: FloatArray = np.diagonal(block, axis1=1, axis2=2).copy()
    return diagonal
