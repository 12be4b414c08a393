"""What of a checkpoint a model owns: no buffers, and no layers that it does not build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.adapters.base_files import open_base
from dlm_sway.chain.owned import owned_by_model


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transformer.h.0.attn.bias", (1, 1, 8, 8)),
        ("transformer.h.0.attn.masked_bias", ()),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,)),
        ("model.layers.2.self_attn.q_proj.weight", (4, 4)),
        ("model.layers.2.input_layernorm.weight", (4,)),
        ("mtp.layers.0.mlp.up_proj.weight", (4, 4)),
    ],
)
def test_what_is_computed_anew_or_never_built_is_not_owned(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    assert name not in _owned(tmp_path, {name: shape})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transformer.h.0.attn.c_attn.bias", (12,)),
        ("model.layers.1.self_attn.q_proj.bias", (4,)),
        ("model.layers.1.self_attn.q_proj.weight", (4, 4)),
        ("model.embed_tokens.weight", (9, 4)),
    ],
)
def test_ordinary_parameters_are_owned(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    assert name in _owned(tmp_path, {name: shape})


def test_gpt2_counts_its_layers_under_another_name(tmp_path: Path) -> None:
    found = _owned(tmp_path, {f"transformer.h.{i}.ln_1.weight": (4,) for i in range(3)}, config={"n_layer": 2})
    assert found == {"transformer.h.0.ln_1.weight", "transformer.h.1.ln_1.weight"}


def _owned(folder: Path, shapes: dict[str, tuple[int, ...]], config: Any = None) -> frozenset[str]:
    (folder / "config.json").write_text(json.dumps(config or {"num_hidden_layers": 2}))
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    return owned_by_model(open_base(folder))
