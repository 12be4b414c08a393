"""A real vLLM agrees with `hf` on the real model; run by `make test-vllm`, in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.backends.registry import open_backend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import FINETUNED, View, scaled
from dlm_sway.demo.noise import write_noise
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.filterwarnings("default")]
TEXTS = ("The river rises in the hills and runs west for sixty miles.", "def area(radius):\n    return 3 * radius")
VIEWS = (FINETUNED, scaled(0.5), View("rotation", seed=1, draw=0))


def test_log_probs_and_gains_agree_with_hf(model_dir: Path, tmp_path: Path) -> None:
    adapter = write_noise(model_dir, tmp_path / "adapter", b_std=0.05)
    ask = Ask(tuple(TextItem("", t, t, t) for t in TEXTS), VIEWS, frozenset({"gain"}), format="raw")
    hf = HuggingFaceDifferentialBackend(
        base_spec=ModelSpec(base=str(model_dir), dtype="fp32", device="cpu"), adapter_path=adapter
    )
    (theirs,) = Engine(hf).answer([ask])
    hf.close()
    options = {"max_length": 256, "engine": {"enforce_eager": True, "gpu_memory_utilization": 0.3}}
    backend = open_backend(ModelSpec(base=str(model_dir), kind="vllm", adapter=adapter, dtype="fp32", options=options))
    (ours,) = Engine(backend).answer([ask])
    written = backend.write(["The bell"], FINETUNED, max_new_tokens=8, format="raw")  # type: ignore[attr-defined]
    backend.close()
    np.testing.assert_allclose(ours.base_logprob, theirs.base_logprob, atol=1e-3)
    np.testing.assert_allclose(ours.values["gain"], theirs.values["gain"], atol=1e-3)
    assert written[0].n_tokens > 0
