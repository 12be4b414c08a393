from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models import adapter_of, backend_of, base_of, open_backend

from dlm_sway.backends.whole import open_whole
from dlm_sway.chain.behaviour import assert_equivalent

TEXTS = [f"the bell number {i} is struck when the water falls below line {7 * i}" for i in range(12)]


def saved(out: Path, scale: float) -> Path:
    backend = open_backend(base_of("llama"), adapter_of("llama", "qv"))
    for layer in backend.sites.layers:
        layer.scaling["default"] *= scale
    backend.model.to(torch.float32).merge_and_unload().save_pretrained(out)
    backend.close()
    return out


def test_a_merge_in_fp32_is_equivalent(tmp_path: Path) -> None:
    whole = open_whole(saved(tmp_path / "m", 1.0), tokenizer_of=str(base_of("llama")), device="cpu")
    found = assert_equivalent(backend_of("llama", "qv"), whole, TEXTS)
    assert found.effect_left == pytest.approx(1.0, abs=1e-3)


def test_half_of_the_adapter_is_not(tmp_path: Path) -> None:
    whole = open_whole(saved(tmp_path / "m", 0.5), tokenizer_of=str(base_of("llama")), device="cpu")
    with pytest.raises(AssertionError, match=r"fail: .* of the effect is left, as at scale 0\.5.*another scale"):
        assert_equivalent(backend_of("llama", "qv"), whole, TEXTS)
