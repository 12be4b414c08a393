from __future__ import annotations

import numpy as np
import pytest
import torch

from dlm_sway.chain.weights import nf4_rounded, rounded


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
