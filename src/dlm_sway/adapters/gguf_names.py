"""How llama.cpp names the modules of a Hugging Face model, and in what order it keeps the rows of q and k.

Names come from the `gguf` package's own map. The order matters for architectures whose rotary embedding llama.cpp
computes on pairs of neighbours (2i, 2i + 1) where transformers pairs (i, i + d/2): their conversion turns the rows of
W_q and W_k, and whatever adds to these weights must be turned alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.core.errors import BadInputError

_PERMUTED: Final = frozenset({"llama"})
_ARCHITECTURES: Final = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "phi3": "phi3",
}
"""By `model_type` of the config: those whose modules are neither fused nor split, so that factors carry over."""

_PREFIXES: Final = {"gpt2": "transformer.h.{}."}
_MODULES: Final = {
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "phi3": ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
}
_USUAL: Final = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)


@dataclass(frozen=True, slots=True)
class GgufNames:
    """The modules of one model as llama.cpp has them.

    Attributes:
        architecture: llama.cpp's name of it.
        weights: llama.cpp's name of each weight, by module name in the base.
        heads: number of heads of the modules whose rows it turns, by module name.
        tied: whether the head is the embedding, and so no tensor of its own.
    """

    architecture: str
    weights: Mapping[str, str]
    heads: Mapping[str, int]
    tied: bool

    def to_gguf(self, module: str, rows: Float32Array) -> Float32Array:
        """Return [d_out, ...] in llama.cpp's order of rows."""
        n = self.heads.get(module)
        return rows if n is None else _turned(rows, n, halves_first=True)

    def from_gguf(self, module: str, rows: Float32Array) -> Float32Array:
        """Return [d_out, ...] in transformers' order of rows: the inverse of `to_gguf`."""
        n = self.heads.get(module)
        return rows if n is None else _turned(rows, n, halves_first=False)


def names_of(base: Path) -> GgufNames:
    """Return the names for the model in directory `base`, from its config.json.

    Raises:
        BadInputError: there is no config, or llama.cpp keeps this architecture in another form.
    """
    path = base / "config.json"
    if not path.is_file():
        raise BadInputError("has no config.json", where=base, remedy="name the directory of the base model as --base")
    config = read_json_object(path)
    kind = str(config.get("model_type"))
    if kind not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise BadInputError(
            f"{kind!r} models are not converted",
            where=base,
            remedy=f"known are {known}; llama.cpp's convert_lora_to_gguf.py knows more",
        )
    return _named(kind, config)


def _named(kind: str, config: Mapping[str, Any]) -> GgufNames:
    import gguf

    architecture = _ARCHITECTURES[kind]
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    n_layers = int(config.get("num_hidden_layers", config.get("n_layer", 0)))
    table = gguf.get_tensor_name_map(arch, n_layers)
    prefix, inner = _PREFIXES.get(kind, "model.layers.{}."), _MODULES.get(kind, _USUAL)
    modules = [prefix.format(i) + name for i in range(n_layers) for name in inner]
    tied = bool(config.get("tie_word_embeddings", kind not in ("llama", "mistral", "phi3")))
    modules += [] if tied else ["lm_head"]
    weights = {m: str(table.get_name(f"{m}.weight", try_suffixes=(".weight",))) for m in modules}
    heads: dict[str, int] = {}
    if architecture in _PERMUTED:
        n_q = int(config["num_attention_heads"])
        n_k = int(config.get("num_key_value_heads") or n_q)
        heads = {m: n_q if m.endswith("q_proj") else n_k for m in modules if m.endswith(("q_proj", "k_proj"))}
    return GgufNames(architecture, weights, heads, tied)


def _turned(rows: Float32Array, n_heads: int, *, halves_first: bool) -> Float32Array:
    """Return rows with those of each head interleaved (to llama.cpp), or parted again (from it)."""
    half = rows.shape[0] // n_heads // 2
    shape = (n_heads, 2, half, -1) if halves_first else (n_heads, half, 2, -1)
    return np.ascontiguousarray(rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape))
