from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.adapters.cuts import n_kept, top_directions
from dlm_sway.core.errors import BadInputError


def _factors(seed: int, *, d_out: int = 12, d_in: int = 9, r: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((r, d_in)) * 10.0 ** rng.uniform(-1, 1, size=(r, 1))
    return a.astype(np.float32), rng.standard_normal((d_out, r)).astype(np.float32)


@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.01, 1.0),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8)),
)
@settings(deadline=None)
def test_the_cut_is_the_best_approximation_of_its_rank(seed: int, share: float, shape: tuple[int, int, int]) -> None:
    d_out, d_in, r = shape
    a, b = _factors(seed, d_out=d_out, d_in=d_in, r=r)
    k = n_kept(min(shape), share)
    u, s, vt = np.linalg.svd(b.astype(float) @ a.astype(float), full_matrices=False)
    best = (u[:, :k] * s[:k]) @ vt[:k]
    cut = top_directions(a, b, share=share, module="m")
    np.testing.assert_allclose(cut.astype(float) @ a.astype(float), best, atol=2e-5 * s[0])
    assert (cut.shape, cut.dtype) == (b.shape, b.dtype)


def test_a_share_of_one_keeps_every_bit() -> None:
    a, b = _factors(0)
    assert top_directions(a, b, share=1.0, module="m") is b


def test_a_convolution_is_cut_like_the_matrix_it_is() -> None:
    a, b = _factors(1, d_in=18)
    shaped = top_directions(a.reshape(6, 2, 3, 3), b.reshape(12, 6, 1, 1), share=0.5, module="m")
    np.testing.assert_array_equal(shaped.reshape(12, 6), top_directions(a, b, share=0.5, module="m"))


def test_an_adapter_of_zeros_stays_one() -> None:
    a, b = _factors(2)
    assert not top_directions(a, np.zeros_like(b), share=0.5, module="m").any()


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(BadInputError, match="cannot be kept"):
        top_directions(*_factors(0), share=share, module="m")


def test_a_factor_that_is_not_finite_is_refused() -> None:
    a, b = _factors(0)
    b[0, 0] = np.nan
    with pytest.raises(BadInputError, match="NaN"):
        top_directions(a, b, share=0.5, module="m")


@pytest.mark.parametrize(("rank", "share", "k"), [(8, 0.25, 2), (8, 0.125, 1), (4, 0.125, 1), (1, 0.5, 1), (3, 1.0, 3)])
def test_at_least_one_direction_is_kept(rank: int, share: float, k: int) -> None:
    assert n_kept(rank, share) == k
