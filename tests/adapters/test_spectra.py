from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.adapters.spectra import input_factor, output_factor, spectral_norm, spectrum


@given(
    fan_out=st.integers(1, 40),
    fan_in=st.integers(1, 40),
    rank=st.integers(1, 50),
    scale=st.floats(-8, 8),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_singular_values_are_those_of_the_dense_product(
    fan_out: int, fan_in: int, rank: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rank, fan_in)).astype(np.float32)
    b = rng.normal(size=(fan_out, rank)).astype(np.float32)
    found = spectrum(output_factor(b), input_factor(a), scale=scale)
    dense = scale * b.astype(np.float64) @ a.astype(np.float64)
    expected = np.linalg.svd(dense, compute_uv=False)
    size = min(found.singular_values.size, expected.size)
    np.testing.assert_allclose(found.singular_values[:size], expected[:size], atol=1e-9)
    assert found.frobenius == pytest.approx(np.linalg.norm(dense), abs=1e-9)
    assert found.spectral == pytest.approx(expected[0], abs=1e-9)


def test_many_row_blocks_give_the_factor_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 10_000)).astype(np.float32)
    found = input_factor(a)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found.T @ found, a.astype(np.float64) @ a.T.astype(np.float64), rtol=1e-9)


def test_a_convolution_counts_as_the_matrix_that_it_is_applied_as() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 3, 5, 5)).astype(np.float32)
    b = rng.normal(size=(7, 2, 1, 1)).astype(np.float32)
    found = spectrum(output_factor(b), input_factor(a), scale=1.0)
    assert found.frobenius == pytest.approx(np.linalg.norm(b.reshape(7, 2) @ a.reshape(2, 75)), rel=1e-6)


def test_effective_rank_is_the_rank_of_equal_values_and_one_of_a_single_one() -> None:
    assert spectrum(np.eye(5), np.eye(5), scale=3.0).effective_rank == pytest.approx(5)
    assert spectrum(np.diag([1.0, 0, 0]), np.eye(3), scale=1.0).effective_rank == pytest.approx(1)


def test_a_zero_change_has_no_rank() -> None:
    found = spectrum(np.zeros((3, 3)), np.eye(3), scale=1.0)
    assert (found.frobenius, found.spectral, found.effective_rank) == (0.0, 0.0, 0.0)


def test_large_values_do_not_overflow() -> None:
    huge = np.full((4, 4), 1e30, np.float32)
    assert np.isfinite(spectrum(output_factor(huge), input_factor(huge), scale=1.0).frobenius)


def test_a_long_factor_is_not_copied_as_a_whole() -> None:
    a = np.ones((4, 1 << 18), np.float32)
    tracemalloc.start()
    input_factor(a)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 4


def test_factors_of_different_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="mismatch"):
        spectrum(np.eye(3), np.eye(4), scale=1.0)


@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    rank=st.integers(0, 80),
    size=st.sampled_from([1e-20, 1.0, 1e18]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_the_spectral_norm_is_the_first_singular_value(
    rows: int, columns: int, rank: int, size: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = (size * rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))).astype(np.float32)
    expected = np.linalg.norm(matrix.astype(np.float64), 2)
    assert spectral_norm(matrix) == pytest.approx(expected, rel=1e-5)
