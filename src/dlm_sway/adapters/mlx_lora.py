"""LoRA adapters as mlx_lm writes and loads them: `adapters.safetensors` beside an `adapter_config.json` of its own.

A module computes `W x + scale (x lora_a) lora_b`, with one scale and one rank for all of them. What has another scale
(rsLoRA, alpha patterns) gets the quotient multiplied into its B, and what has a smaller rank gets zeros behind it,
which reading takes off again; everything else is stored bit for bit.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from dlm_sway.adapters.config import CONFIG_NAME
from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.adapters.factors import MATRIX_AXES
from dlm_sway.adapters.fields import Fields
from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.adapters.lora import Lora, LoraFactors
from dlm_sway.adapters.naming import Part
from dlm_sway.adapters.other_formats import MLX_WEIGHTS
from dlm_sway.adapters.tensors import TensorFile
from dlm_sway.core.errors import AdapterError

_LEAVES: Final = ("lora_a", "lora_b", "m")
_TABLES: Final = frozenset({"embed_in", "embed_tokens", "tok_embeddings", "wte"})
_REMEDY: Final = "fuse it with mlx_lm.fuse and test that, or train with fine_tune_type lora"


def read_mlx_lora(adapter: Path, *, also: Collection[Part] = ()) -> tuple[Lora, str | None]:
    """Return the factors of an MLX adapter by mlx_lm's module names, and the base that it records.

    Args:
        adapter: the directory.
        also: what else than plain LoRA on linear modules the caller has a use for: magnitudes (DoRA), embeddings.

    Raises:
        AdapterError: it cannot be read, or holds more than that.
    """
    config = Fields(read_json_object(adapter / CONFIG_NAME), where=adapter / CONFIG_NAME)
    kind = config.text("fine_tune_type") or "lora"
    if kind not in ("lora", "dora") or (kind == "dora" and Part.MAGNITUDE not in also):
        raise AdapterError(f"is of fine_tune_type {kind}, which is no plain LoRA", where=adapter, remedy=_REMEDY)
    settings = config.part("lora_parameters")
    file = TensorFile(adapter / MLX_WEIGHTS)
    parts: dict[str, dict[str, Float32Array]] = {}
    for name in file.infos:
        module, _, leaf = name.rpartition(".")
        if leaf not in _LEAVES[: 3 if kind == "dora" else 2] or not module:
            raise AdapterError(f"holds {name}, which is no factor of a LoRA", where=adapter, remedy=_REMEDY)
        parts.setdefault(module, {})[leaf] = file.read(name)
    scale = settings.number("scale", default=20.0)
    lora = {module: _factors(module, found, scale, adapter) for module, found in parts.items()}
    if tables := [m for m, f in lora.items() if f.kind == "embedding" and Part.EMBEDDING_A not in also]:
        raise AdapterError(f"adapts the embedding {tables[0]}", where=adapter, remedy=_REMEDY)
    return lora, config.text("model")


def _factors(module: str, parts: Mapping[str, Float32Array], scale: float, adapter: Path) -> LoraFactors:
    a, b = parts.get("lora_a"), parts.get("lora_b")
    if a is None or b is None or a.ndim != MATRIX_AXES or b.ndim != MATRIX_AXES or a.shape[1] != b.shape[0]:
        raise AdapterError(f"{module} has no pair of factors for a linear module", where=adapter, remedy=_REMEDY)
    used = np.flatnonzero(a.any(axis=0) | b.any(axis=1))
    rank = int(used[-1]) + 1 if used.size else 1
    first, second = np.ascontiguousarray(a[:, :rank].T), np.ascontiguousarray(b[:rank].T)
    if module.rpartition(".")[2] in _TABLES:
        return LoraFactors(first, second, scale, "embedding", parts.get("m"))
    return LoraFactors(first, second, scale, "linear", parts.get("m"))


def write_mlx_lora(lora: Lora, out: Path, *, base: str | None) -> None:
    """Write factors, by mlx_lm's module names, as the directory that `mlx_lm.load(..., adapter_path=...)` loads.

    Args:
        lora: factors by module.
        out: the directory to write.
        base: what the config records as its base.

    Raises:
        AdapterError: there are none.
    """
    from safetensors.numpy import save_file

    if not lora:
        raise AdapterError("holds no factors", where=out)
    rank = max(f.rank for f in lora.values())
    scale = Counter(f.scale or 1.0 for f in lora.values()).most_common(1)[0][0]
    layers = {match[0] for name in lora if (match := re.search(r"\.\d+\.", name))}
    config: dict[str, Any] = {
        "fine_tune_type": "lora",
        "model": base,
        "num_layers": len(layers),
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": sorted(lora)},
    }
    tensors: dict[str, Float32Array] = {}
    for module, f in lora.items():
        b = f.b if f.scale == scale else f.b * np.float32(f.scale / scale)
        tensors[f"{module}.lora_a"] = np.ascontiguousarray(_widened(f.a, rank).T)
        tensors[f"{module}.lora_b"] = _widened(np.ascontiguousarray(b.T), rank)
    out.mkdir()
    (out / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, out / MLX_WEIGHTS, metadata={"format": "mlx"})


def _widened(rows: Float32Array, rank: int) -> Float32Array:
    return np.pad(rows, ((0, rank - len(rows)), (0, 0)))
