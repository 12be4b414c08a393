"""An adapter cut to the largest directions of its change.

With `B A = U diag(s) V^T` per module, the cut keeps the k largest singular values. A is kept and B is projected,
`B' = U_k U_k^T B`, so that `B' A = U_k diag(s_k) V_k^T`: cuts share the adapter's A, as rotations do, and the large
product is never formed.
"""

from __future__ import annotations

import math

import numpy as np

from dlm_sway.adapters.nulls import F32, like, triplets
from dlm_sway.core.errors import BadInputError


def n_kept(rank: int, share: float) -> int:
    """Return how many of `rank` directions a share of them is: the nearest whole number, at least one."""
    return max(1, min(rank, round(rank * share)))


def top_directions(a: F32, b: F32, *, share: float, module: str) -> F32:
    """Return the B of an adapter cut to a share of its rank; B itself where the share keeps all.

    Args:
        a: f32[r, d_in].
        b: f32[d_out, r].
        share: of the rank that the shapes allow, min(r, d_out, d_in); positive, and 1 keeps all.
        module: the module's name, for errors.

    Raises:
        BadInputError: the share is not in (0, 1], or a factor cannot be used.
    """
    if not (math.isfinite(share) and 0.0 < share <= 1.0):
        raise BadInputError(f"a share of {share} of the rank cannot be kept", where=module, remedy="use one in (0, 1]")
    q, upper, u, rank = triplets(a, b, module)
    if n_kept(rank, share) == rank:
        return b
    top = u[:, : n_kept(rank, share)]
    return like(b, np.asarray((q @ top) @ (top.T @ upper), dtype=np.float64))
