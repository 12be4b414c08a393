"""Small bases and adapters, made by hand so that every fault can be planted exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

Arrays = dict[str, np.ndarray]

WIDTH, NARROW, INNER, VOCAB, RANK = 16, 8, 32, 64, 4
LINEAR = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (NARROW, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
MODULES = {f"model.layers.{layer}.{name}": shape for layer in range(2) for name, shape in LINEAR.items()}


def _normal(rng: np.random.Generator, *shape: int, std: float = 1.0) -> np.ndarray:
    return (rng.normal(size=shape) * std).astype(np.float32)


def base_weights(*, tied: bool = False) -> Arrays:
    """A Llama of two layers, as its checkpoint names it."""
    rng = np.random.default_rng(1)
    weights = {f"{module}.weight": _normal(rng, *shape, std=0.25) for module, shape in MODULES.items()}
    weights |= {
        f"model.layers.{layer}.{name}.weight": np.ones(WIDTH, np.float32)
        for layer in range(2)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    weights["model.embed_tokens.weight"] = _normal(rng, VOCAB, WIDTH, std=0.25)
    weights["model.norm.weight"] = np.ones(WIDTH, np.float32)
    if not tied:
        weights["lm_head.weight"] = _normal(rng, VOCAB, WIDTH, std=0.25)
    return weights


def factors(module: str, shape: tuple[int, int], *, rank: int = RANK, seed: int = 2) -> Arrays:
    """The two factors of a linear module whose weight is [out, in]."""
    rng = np.random.default_rng([seed, len(module), *module.encode()])
    fan_out, fan_in = shape
    return {
        f"base_model.model.{module}.lora_A.weight": _normal(rng, rank, fan_in, std=fan_in**-0.5),
        f"base_model.model.{module}.lora_B.weight": _normal(rng, fan_out, rank, std=0.01),
    }


def lora_tensors(modules: Mapping[str, tuple[int, int]] = MODULES, *, rank: int = RANK) -> Arrays:
    """Healthy factors of every module."""
    return {
        name: value for module, shape in modules.items() for name, value in factors(module, shape, rank=rank).items()
    }


def embedding_factors() -> Arrays:
    """Healthy factors of the token embedding."""
    rng = np.random.default_rng(0)
    owner = "base_model.model.model.embed_tokens"
    return {
        f"{owner}.lora_embedding_A": _normal(rng, RANK, VOCAB, std=VOCAB**-0.5),
        f"{owner}.lora_embedding_B": _normal(rng, WIDTH, RANK, std=0.01),
    }


def lora_config(**changes: Any) -> dict[str, Any]:
    """The config that goes with `lora_tensors`, changed as told."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "someone/base",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"],
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "a_key_of_a_later_release": {"nested": True},
    } | changes


def raw_safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A safetensors file of any number format, which safetensors.numpy would refuse."""
    header, data = {}, b""
    for name, (dtype, shape, payload) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(payload)]}
        data += payload
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def as_bfloat16(values: np.ndarray) -> bytes:
    """The upper halves of float32 values: bfloat16 rounded towards zero."""
    return (values.astype("<f4").view(np.uint32) >> 16).astype("<u2").tobytes()


class Kit:
    """Builders of bases and adapters in a test's own folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    weights = staticmethod(base_weights)
    tensors = staticmethod(lora_tensors)
    factors = staticmethod(factors)
    config = staticmethod(lora_config)
    embedding_factors = staticmethod(embedding_factors)
    raw = staticmethod(raw_safetensors)
    bfloat16 = staticmethod(as_bfloat16)
    modules = MODULES

    def base(
        self, weights: Arrays | None = None, *, name: str = "base", n_ids: int | None = VOCAB, **config: Any
    ) -> Path:
        """Write a base directory; `n_ids` is the length of its tokenizer."""
        folder = self.root / name
        folder.mkdir()
        save_file(base_weights() if weights is None else weights, folder / "model.safetensors")
        facts = {"model_type": "llama", "tie_word_embeddings": False, "num_hidden_layers": 2} | config
        (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")
        if n_ids is not None:
            self.tokenizer(folder, n_ids)
        return folder

    def tokenizer(self, folder: Path, n_ids: int) -> None:
        """Write a tokenizer whose largest id is `n_ids` - 1, the last one an added token."""
        vocab = {f"t{number}": number for number in range(n_ids - 1)}
        added = [{"id": n_ids - 1, "content": "<end>"}]
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))

    def adapter(self, tensors: Arrays | bytes | None = None, *, name: str = "adapter", **config: Any) -> Path:
        """Write an adapter directory; `tensors` may be the bytes of the weights file."""
        folder = self.root / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(lora_config(**config)), encoding="utf-8")
        path = folder / "adapter_model.safetensors"
        if isinstance(tensors, bytes):
            path.write_bytes(tensors)
        else:
            save_file(lora_tensors() if tensors is None else tensors, path)
        return folder


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture
def inspected(kit: Kit) -> Callable[..., Any]:
    """Inspect an adapter made of `tensors` and `config` against the usual base; returns the inspection."""
    from dlm_sway.adapters.checks import inspect_adapter

    def run(tensors: Arrays | bytes | None = None, *, base: Path | None = None, **config: Any) -> Any:
        return inspect_adapter(kit.adapter(tensors, **config), str(kit.base() if base is None else base))

    return run
