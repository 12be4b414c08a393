"""LoRA adapters as llama.cpp loads them: GGUF files of type `adapter`.

llama.cpp multiplies by `alpha / r`, with one alpha a file and r from each tensor. What has another scale (rsLoRA, rank
and alpha patterns) gets the quotient multiplied into its B; everything else is stored bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from dlm_sway.adapters.gguf_names import GgufNames
from dlm_sway.adapters.lora import Lora, LoraFactors
from dlm_sway.core.errors import AdapterError

ALPHA: Final = "adapter.lora.alpha"
_TYPE: Final = "general.type"
_ARCHITECTURE: Final = "general.architecture"
_A, _B = ".lora_a", ".lora_b"


def write_gguf_lora(lora: Lora, names: GgufNames, out: Path, *, alpha: float, name: str) -> None:
    """Write a GGUF LoRA file.

    Args:
        lora: factors by module.
        names: what llama.cpp calls these modules.
        out: the file to write.
        alpha: the file's alpha; modules whose scale is not `alpha / r` are rescaled.
        name: what the file says it is called.

    Raises:
        AdapterError: a module has no counterpart in llama.cpp.
    """
    import gguf

    if unknown := sorted(set(lora) - set(names.weights)):
        why = "; its head is the embedding, which a LoRA file cannot adapt" if names.tied and "lm_head" in lora else ""
        raise AdapterError(
            f"{unknown[0]} has no counterpart in a {names.architecture} GGUF{why}",
            remedy="leave it out of target_modules, or merge the adapter into the base",
        )
    writer = gguf.GGUFWriter(out, names.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32(ALPHA, alpha)
    writer.add_name(name)
    for module, factors in lora.items():
        a, b = _stored(factors, alpha)
        writer.add_tensor(names.weights[module] + _A, a)
        writer.add_tensor(names.weights[module] + _B, np.ascontiguousarray(names.to_gguf(module, b)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored(factors: LoraFactors, alpha: float) -> tuple[Any, Any]:
    factor = factors.scale * factors.rank / alpha
    b = factors.b if abs(factor - 1) < 1e-6 else factors.b * np.float32(factor)  # noqa: PLR2004 (equal up to rounding)
    return np.ascontiguousarray(factors.a), b


def read_gguf_lora(path: Path, names: GgufNames) -> tuple[Lora, float]:
    """Return the factors of a GGUF LoRA file by module of the base, and its alpha.

    Raises:
        AdapterError: it is no GGUF LoRA, of another architecture, or holds tensors that are not understood.
    """
    reader = open_gguf(path)
    kind, architecture = (text_of(reader, key) for key in (_TYPE, _ARCHITECTURE))
    if kind != "adapter":
        raise AdapterError(f"is a GGUF of type {kind or 'model'}, no LoRA adapter", where=path)
    if architecture != names.architecture:
        what = f"is an adapter for {architecture} models, and the base is one of {names.architecture}"
        raise AdapterError(what, where=path, remedy="name its own base as --base")
    alpha = float(reader.fields[ALPHA].contents()) if ALPHA in reader.fields else 0.0
    modules = {weight: module for module, weight in names.weights.items()}
    a, b = _factors(reader, _A), _factors(reader, _B)
    if strange := sorted((a.keys() ^ b.keys()) | (a.keys() - modules.keys())):
        raise AdapterError(f"tensor {strange[0]} is alone or unknown", where=path, remedy="convert the adapter again")
    found: dict[str, LoraFactors] = {}
    for weight, first in a.items():
        module = modules[weight]
        scale = alpha / first.shape[0] if alpha else 1.0  # llama.cpp: without alpha the product counts as it is
        found[module] = LoraFactors(first, names.from_gguf(module, b[weight]), scale)
    return found, alpha


def open_gguf(path: Path) -> Any:
    """Return a reader of a GGUF file.

    Raises:
        AdapterError: there is none, or it is damaged.
    """
    import gguf

    if path.is_dir():
        raise AdapterError("is a directory, not a GGUF file", where=path, remedy=_file_in(path))
    if not path.is_file():
        raise AdapterError("no such file", where=path, remedy="check the path")
    try:
        return gguf.GGUFReader(path)
    except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
        raise AdapterError(f"no readable GGUF file ({error})", where=path, remedy="convert it again") from None


def _file_in(folder: Path) -> str:
    found = sorted(path.name for path in folder.glob("*.gguf"))
    return f"name the file in it: {', '.join(found[:3])}" if found else "name a GGUF file"


def text_of(reader: Any, key: str) -> str | None:
    """Return a text of the file's metadata, or None when it has none of that name."""
    field = reader.fields.get(key)
    value = None if field is None else field.contents()
    return value if isinstance(value, str) else None


def _factors(reader: Any, suffix: str) -> dict[str, Any]:
    from gguf.quants import dequantize

    return {
        t.name.removesuffix(suffix): np.array(dequantize(t.data, t.tensor_type), dtype=np.float32)
        for t in reader.tensors
        if t.name.endswith(suffix)
    }
