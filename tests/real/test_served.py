"""SmolLM2 behind a llama.cpp server on loopback, with a LoRA that this project converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gguf_models import save_gguf, serving
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


LAMS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(base, tmp_path_factory.mktemp("served") / "adapter", lora(), std=0.08)


def both(base: Path, adapter: Path, gguf: Path, lora_file: Path) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Return log-probs under PyTorch and behind the server, by scale."""
    convert(adapter, to="gguf", out=lora_file, base=str(base))
    reference = open_backend(base, adapter)
    options = {"lora": 0, "top_k": 40}
    with serving(gguf, [lora_file], n_ctx=256, n_threads=2) as url:
        served: Any = open_by_spec(ModelSpec(base=str(base), kind="api", options={"url": url, **options}))
        found = {}
        for lam in LAMS:
            sides = []
            for backend in (reference, served):
                with backend.view(scaled(lam)) as view:
                    sides.append(view.rolling_logprob(TEXT).logprobs)
            found[lam] = (sides[0], sides[1])
        served.close()
    return found


def test_in_fp32_the_server_gives_the_numbers_of_pytorch(base: Path, adapter: Path, tmp_path: Path) -> None:
    gguf = save_gguf(base, tmp_path / "base.gguf")
    for lam, (ours, theirs) in both(base, adapter, gguf, tmp_path / "a.gguf").items():
        np.testing.assert_allclose(theirs, ours, atol=1e-3, err_msg=str(lam))


def test_a_quantised_server_gives_the_effect_of_the_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Q4_1 weights are the same numbers on both sides; llama.cpp rounds activations to 8 bits besides."""
    found = both(base, adapter, demo_gguf(), tmp_path / "a.gguf")
    apart = {lam: float(np.abs(a - b).mean()) for lam, (a, b) in found.items()}
    effects = [found[1.0][side] - found[0.0][side] for side in (0, 1)]
    print(apart, float(np.abs(effects[0]).mean()))
    assert max(apart.values()) < 0.2
    assert np.corrcoef(*effects)[0, 1] > 0.9
