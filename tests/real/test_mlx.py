"""SmolLM2 under MLX and under PyTorch: the same numbers in every view, and the same place among the nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import lora, open_backend, save_adapter

from dlm_sway.backends.registry import open_backend as open_by_spec
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import FINETUNED, rotations, scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine

pytest.importorskip("mlx_lm", reason="the mlx backend is tested where mlx and mlx-lm are installed")
pytestmark = [pytest.mark.real, pytest.mark.slow]

# Few tokens: on Linux the wheels of mlx multiply with the reference BLAS, a hundred times slower than PyTorch.
TEXTS = ("The river rises in the hills and runs west for sixty miles.",)
VIEWS = (FINETUNED, scaled(0.5), *rotations(seed=7, n_draws=2))


def scores(backend: Any) -> Any:
    items = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(TEXTS))
    try:
        engine = Engine(backend)
        (found,) = engine.answer([Ask(items, VIEWS, frozenset({"gain", "kl"}), format="raw")])
        assert engine.path == "stacked"
        return found
    finally:
        backend.close()


def test_mlx_agrees_with_pytorch_on_the_real_model(model_dir: Path, tmp_path: Path) -> None:
    adapter = save_adapter(model_dir, tmp_path / "adapter", lora(target_modules="all-linear"), std=0.03)
    spec = ModelSpec(base=str(model_dir), kind="mlx", adapter=adapter, device="cpu")
    ours, theirs = scores(open_by_spec(spec)), scores(open_backend(model_dir, adapter))
    apart = {
        "base": np.abs(ours.base_logprob - theirs.base_logprob).max(),
        **{name: np.abs(ours.values[name] - theirs.values[name]).max() for name in ("gain", "kl")},
    }
    print(apart, np.abs(theirs.values["gain"]).max())
    assert max(apart.values()) < 1e-3
    order = [np.argsort(found.values["kl"].sum(axis=1)) for found in (ours, theirs)]
    np.testing.assert_array_equal(*order)
