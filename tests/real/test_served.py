"""SmolLM2 behind a llama.cpp server on loopback, with a LoRA that this project converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gguf_models import serving
from tests.models import lora, open_backend, save_adapter

from dlm_sway.adapters.convert import convert
from dlm_sway.backends.registry import open_backend as open_by_spec
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import scaled
from dlm_sway.demo.model import demo_gguf, demo_model

pytestmark = pytest.mark.real

TEXT = "The river rises in the hills and runs west for sixty miles."


@pytest.fixture(scope="module")
def base() -> Path:
    return demo_model()


def test_a_quantised_server_gives_the_effect_of_the_adapter(base: Path, tmp_path: Path) -> None:
    """Q4_1 weights are the same numbers on both sides; llama.cpp rounds activations to 8 bits besides."""
    adapter = save_adapter(base, tmp_path / "adapter", lora(), std=0.04)
    convert(adapter, to="gguf", out=tmp_path / "a.gguf", base=str(base))
    reference = open_backend(base, adapter)
    with serving(demo_gguf(), [tmp_path / "a.gguf"], n_ctx=256, n_threads=2) as url:
        served: Any = open_by_spec(ModelSpec(base=str(base), kind="api", options={"url": url, "lora": 0, "top_k": 40}))
        found: dict[float, list[np.ndarray]] = {}
        for lam in (0.0, 0.5, 1.0):
            for backend in (reference, served):
                with backend.view(scaled(lam)) as view:
                    found.setdefault(lam, []).append(view.rolling_logprob(TEXT).logprobs)
        served.close()
    apart = {lam: float(np.abs(a - b).mean()) for lam, (a, b) in found.items()}
    effect = float(np.abs(found[1.0][0] - found[0.0][0]).mean())
    print(apart, effect)
    assert max(apart.values()) < 0.1
    assert effect > 3 * max(apart.values())
