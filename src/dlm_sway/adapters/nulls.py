"""Adapters that learned nothing: random members of a group that the size of the real change does not feel.

A trained module adds `delta W = s * B @ A` with `A` f32[r, d_in] and `B` f32[d_out, r]; s stays outside. If nothing
was learned, the direction of the change is arbitrary, so every member of a group that only turns it is as likely as
the change itself, and the rank of the real statistic among the draws is uniform: exact for any number of draws and
any statistic (Hemerik and Goeman 2018, "Exact testing with random permutations").

Convolutions pass their factors as they are (`A` [r, c_in, k, ...], `B` [d_out, r, 1, ...]): all axes after the first
count as one. Float32 in and out, float64 inside. Each draw is keyed by (seed, draw, module, what is drawn), so the
parts of one module are independent of each other; `module` is its name in the base, without wrapper or adapter names.
The bytes repeat on one machine; another LAPACK may differ in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]


def haar_columns(rng: np.random.Generator, d: int, r: int) -> F64:
    """Return f64[d, min(d, r)] with orthonormal columns, uniform (Haar) on the Stiefel manifold.

    QR of a Gaussian is Haar only with the signs of R's diagonal made positive (Mezzadri 2007, "How to generate random
    matrices from the classical compact groups"). For r > d this is a whole orthogonal matrix, as in the thin QR of a
    d x r matrix.
    """
    q, upper = np.linalg.qr(rng.standard_normal((d, min(d, r))))
    return np.asarray(q * np.where(np.diagonal(upper) < 0.0, -1.0, 1.0), dtype=np.float64)


def rotate_output(b: F32, *, seed: int, draw: int, module: str) -> F32:
    """Return the B of a rotation null (N1): its output side turned at random, `B = Q R`, `B' = Q' R` with Q' Haar.

    `B' = H B` for an orthogonal H, so with A kept the singular values of delta W and the norm of `(delta W) x` are
    those of the real change for every x.

    Args:
        b: f32[d_out, r]; r > d_out is fine.
        seed: the run's seed.
        draw: which null.
        module: the module's name in the base.

    Raises:
        BadInputError: B is empty, no matrix, or not finite.
    """
    columns = _matrix(b, module)
    q = haar_columns(stream(seed, draw, module, "rotation"), *columns.shape)
    return like(b, q @ _upper(columns))


def sign_flip(a: F32, b: F32, *, seed: int, draw: int, module: str) -> F32:
    """Return the B of a sign-flip null (N1s): `B' A = U diag(eps * s) V^T` where `B A = U diag(s) V^T`, eps = +-1.

    With the thin QRs `B = Q R`, `A^T = P T` and the small SVD `R T^T = u diag(s) v^T`, the product needs no inverse:
    `B' = Q u diag(eps) u^T R`. So A may be rank-deficient and is kept. A module of rank r has only 2^r such nulls, the
    real one among them.

    Raises:
        BadInputError: a factor is empty, no matrix, or not finite, or the ranks of A and B differ.
    """
    q, upper, u, _ = triplets(a, b, module)
    eps = stream(seed, draw, module, "sign-flip").choice([-1.0, 1.0], size=u.shape[1])
    return like(b, q @ ((u * eps) @ (u.T @ upper)))


def rotate_rank(a: F32, b: F32, *, multiplier: float, seed: int, draw: int, module: str) -> tuple[F32, F32]:
    """Return `(A, B')` of a rotation null with `k = round(rank * multiplier)` triplets, at least one.

    The singular triplets of `B A` are resampled to k, each with its own Haar column: `B' A = sum_j q_j s_j v_j^T`. Two
    repeats each and one half keeps every other, from a random start: a start at the largest would always keep more
    than half. Every triplet is expected k / rank times, so the expected energy ||B' A||_F^2 is k / rank of the real
    one. `rank` is the most that the shapes allow, min(r, d_out, d_in).

    As all v_j lie in the rows of A, A itself is returned, not copied: rank profiles and rotations share one A. For the
    same reason a multiplier above one adds energy, not rank: two Haar columns on one v_j sum to one of length sqrt(2),
    so at a whole multiplier m the law is that of `sqrt(m) * rotate_output`. More directions would need rows that A
    does not have, where the activations carry next to nothing.

    Raises:
        BadInputError: the multiplier is not positive and finite, k is above d_out (k columns cannot be orthonormal
            there), or a factor cannot be used.
    """
    if not (math.isfinite(multiplier) and multiplier > 0.0):
        raise BadInputError(
            f"rank multiplier {multiplier} is not positive and finite", where=module, remedy="use one such as 0.5 or 2"
        )
    if multiplier == 1.0:
        return a, rotate_output(b, seed=seed, draw=draw, module=module)
    _, upper, u, rank = triplets(a, b, module)
    k = max(1, round(rank * multiplier))
    if k > b.shape[0]:
        raise BadInputError(
            f"{rank} singular values times {multiplier:g} are {k} directions, but the output has {b.shape[0]}",
            where=module,
            remedy=f"use a rank multiplier of at most {b.shape[0] / rank:g}",
        )
    rng = stream(seed, draw, module, "rank", repr(float(multiplier)))
    kept = _systematic(rng, rank, k)
    return a, like(b, haar_columns(rng, b.shape[0], k) @ (u.T[kept] @ upper))


def permute_magnitude(delta: F32, *, seed: int, draw: int, module: str) -> F32:
    """Return DoRA's change of the magnitudes, f32[d_out], in a random order: which output grew is forgotten."""
    return stream(seed, draw, module, "magnitude").permutation(delta)


def sign_permutation(bias_delta: F32, *, seed: int, draw: int, module: str) -> F32:
    """Return the change of a bias, f32[d_out], in a random order with random signs.

    The draw is that of `signed_permutation`, so the weight and the bias of one module move together.
    """
    perm, sign = signed_permutation(bias_delta.shape[0], seed=seed, draw=draw, module=module)
    return sign * bias_delta[perm]


def signed_permutation(d_out: int, *, seed: int, draw: int, module: str) -> tuple[I64, F32]:
    """Return `(perm i64[d_out], sign f32[d_out])`, uniform on the hyperoctahedral group.

    For modules trained in full: the null of delta W, outputs first, is `sign[:, None] * delta_w[perm]`. An embedding's
    outputs are its last axis.
    """
    rng = stream(seed, draw, module, "signed-permutation")
    perm = rng.permutation(d_out).astype(np.int64)
    return perm, rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=d_out)


def gaussian_like(shape: Sequence[int], *, std: float, seed: int, draw: int, module: str, part: str) -> F32:
    """Return f32[shape] of independent zero-mean Gaussians (null N2); `part` tells the factors of a module apart.

    Raises:
        BadInputError: `std` is negative or not finite.
    """
    if not (math.isfinite(std) and std >= 0.0):
        raise BadInputError(f"standard deviation {std} is negative or not finite", where=module)
    return (stream(seed, draw, module, "gaussian", part).standard_normal(tuple(shape)) * std).astype(np.float32)


def triplets(a: F32, b: F32, module: str) -> tuple[F64, F64, F64, int]:
    """Return `(Q, R, u, number of triplets)` of `B A` with `B = Q R`, without forming [d_out, d_in].

    The left singular vectors are `Q @ u`, the largest singular value first.

    Raises:
        BadInputError: a factor is empty, no matrix, or not finite, or the ranks of A and B differ.
    """
    rows, columns = _matrix(a, module), _matrix(b, module)
    if rows.shape[0] != columns.shape[1]:
        raise BadInputError(
            f"A has {rows.shape[0]} rows, but B has {columns.shape[1]} columns",
            where=module,
            remedy="the two factors must come from the same adapter",
        )
    q, upper = np.linalg.qr(columns)
    core = upper @ _upper(rows.T).T
    u, s, _ = np.linalg.svd(core)  # u is square: a rank-deficient B keeps all of its columns
    return q, upper, u, s.size


def _upper(matrix: F64) -> F64:
    return np.asarray(np.linalg.qr(matrix, mode="r"), dtype=np.float64)


def _systematic(rng: np.random.Generator, n: int, k: int) -> I64:
    # Systematic resampling: k of n in even steps from a random start, each expected k / n times.
    steps = (np.arange(k) + rng.random()) * (n / k)
    return np.minimum(steps.astype(np.int64), n - 1)


def _matrix(factor: F32, module: str) -> F64:
    if factor.ndim < 2 or factor.size == 0:  # noqa: PLR2004 (a matrix has two axes)
        raise BadInputError(f"a factor of shape {list(factor.shape)} is no matrix", where=module)
    if not np.isfinite(factor).all():
        raise BadInputError("a factor holds NaN or infinite values", where=module, remedy="train the adapter again")
    return factor.reshape(factor.shape[0], -1).astype(np.float64)


def like(b: F32, turned: F64) -> F32:
    """Return `turned` as float32 in the shape of B."""
    return turned.astype(np.float32).reshape(b.shape)
