from __future__ import annotations

import numpy as np
import pytest
import torch

from dlm_sway.chain.rounding import nf4_rounded, room_of, rounded, stored_as


@pytest.mark.parametrize(("dtype", "of_torch"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_rounding_is_that_of_torch(dtype: str, of_torch: torch.dtype) -> None:
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32) * np.float32(3)
    np.testing.assert_array_equal(rounded(x, dtype), torch.from_numpy(x).to(of_torch).float().numpy())


def test_nf4_keeps_what_lies_on_its_grid_and_is_near_elsewhere() -> None:
    x = np.random.default_rng(0).standard_normal((7, 33)).astype(np.float32)
    once = nf4_rounded(x)
    np.testing.assert_allclose(nf4_rounded(once), once, atol=1e-6)
    assert np.linalg.norm(once - x) / np.linalg.norm(x) < 0.12
    assert len(np.unique(np.abs(once[:1, :1]))) == 1


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1"])
def test_each_format_has_room_for_what_it_does_to_gaussian_weights(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((16, 1024)).astype(np.float32)
    kept, room = stored_as(x, dtype), room_of(dtype)
    assert kept is not None
    assert room is not None
    assert np.linalg.norm(kept - x) / np.linalg.norm(x) < room


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [("Q2_K", 0.26, 0.6), ("IQ2_XXS", 0.24, 0.6), ("IQ2_S", 0.24, 0.6), ("Q3_K", 0.15, 0.3), ("IQ3_XXS", 0.2, 0.3)],
)
def test_the_room_of_two_and_three_bits_is_beyond_what_they_do(dtype: str, least: float, most: float) -> None:
    room = room_of(dtype)  # gguf only reads these; what they do to Gaussian weights was computed apart
    assert room is not None
    assert least < room < most


@pytest.mark.parametrize("dtype", ["TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M", "Q1_0"])
def test_ternary_values_and_fewer_than_two_bits_have_no_bound(dtype: str) -> None:
    assert room_of(dtype) is None
