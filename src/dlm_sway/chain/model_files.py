"""Parameters of whole models as files hold them, under the names and in the form that they have in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from dlm_sway.adapters.base_files import BaseFiles, open_base
from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.adapters.gguf_lora import open_gguf
from dlm_sway.adapters.gguf_names import names_of
from dlm_sway.chain.margins import bits_of
from dlm_sway.chain.rounding import stored_as

HEAD: Final = "lm_head.weight"
_OTHER_NAMES: Final = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_SHIFTED: Final = frozenset({"gemma", "gemma2", "gemma3"})
"""Architectures whose norms llama.cpp keeps as weight + 1, which is what they multiply by."""
_TRANSPOSED: Final = frozenset({"gpt2"})
"""Architectures whose matrices are [in, out] in transformers (Conv1D); llama.cpp keeps all as [out, in]."""
_INTEGERS: Final = frozenset({"U8", "I8", "I32", "U32"})


class Weights(Protocol):
    """Parameters of a whole model by their names in transformers."""

    def names(self) -> frozenset[str]:
        """Return the names."""
        ...

    def read(self, name: str) -> Float32Array:
        """Return one parameter."""
        ...

    def dtype(self, name: str) -> str:
        """Return how it is stored, such as `BF16`."""
        ...

    def stored(self, name: str, values: Float32Array) -> Float32Array | None:
        """Return what would be read of other values of a parameter; None where sway cannot write its format."""
        ...

    def shift(self, name: str) -> float:
        """Return what the file adds to each value of a parameter, and `read` takes off."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every tensor, as the file has it; one without a name in transformers has its own."""
        ...


class SafetensorsWeights:
    """A model directory."""

    def __init__(self, directory: Path) -> None:
        """Read headers alone."""
        self.files: BaseFiles = open_base(directory)

    @property
    def packed(self) -> bool:
        """Whether weights are packed integers: then neither their shapes nor their values are the parameters'."""
        found = ((name, info.dtype) for name, (_, info) in self.files.parameters.items())
        return self.files.is_quantised or any(
            name.endswith(".qweight") or (name.endswith(".weight") and dtype in _INTEGERS) for name, dtype in found
        )

    def names(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(self.files.parameters)

    def read(self, name: str) -> Float32Array:
        """Return one parameter."""
        file, info = self.files.parameters[name]
        return file.read(info.name)

    def dtype(self, name: str) -> str:
        """Return how it is stored."""
        return self.files.parameters[name][1].dtype

    def stored(self, name: str, values: Float32Array) -> Float32Array | None:
        """Return what would be read of other values."""
        return stored_as(values, self.dtype(name))

    def shift(self, name: str) -> float:  # noqa: ARG002 (of the protocol)
        """Return 0."""
        return 0.0

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every tensor."""
        return {name: info.shape for name, (_, info) in self.files.parameters.items()}


class GgufWeights:
    """The matrices of a GGUF file that a LoRA can adapt, its embedding and last norm, as transformers has them."""

    def __init__(self, path: Path, base: Path) -> None:
        """Read the directory of the file; `base` tells the names."""
        self._names = names_of(base)
        self.reader: Any = open_gguf(path)
        known = {weight: f"{module}.weight" for module, weight in self._names.weights.items()}
        known |= _OTHER_NAMES
        self._tensors = {known[t.name]: t for t in self.reader.tensors if t.name in known}
        self._others = {str(t.name): t for t in self.reader.tensors if t.name not in known}

    def bits(self) -> float | None:
        """Return the bits of a weight in the coarsest of the matrices; None where a type is not known."""
        found = [bits_of(str(t.tensor_type.name)) for t in self._tensors.values() if len(t.shape) > 1]
        known = [bits for bits in found if bits is not None]
        return min(known) if known and len(known) == len(found) else None

    def expected(self) -> frozenset[str]:
        """Return the names that a model of this architecture has; an untied head is looked for by itself."""
        return frozenset(f"{module}.weight" for module in self._names.weights) - {HEAD}

    def names(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(self._tensors)

    def read(self, name: str) -> Float32Array:
        """Return one parameter, dequantised."""
        from gguf.quants import dequantize

        found = self._tensors[name]
        values = np.array(dequantize(found.data, found.tensor_type), dtype=np.float32) - np.float32(self.shift(name))
        return self._names.from_gguf(name.removesuffix(".weight"), self._flipped(name, values))

    def dtype(self, name: str) -> str:
        """Return how it is stored."""
        return str(self._tensors[name].tensor_type.name)

    def stored(self, name: str, values: Float32Array) -> Float32Array | None:
        """Return what would be read of other values; blocks lie along a row, so the order of rows does not matter."""
        kept = stored_as(self._flipped(name, values), self.dtype(name))
        return None if kept is None else self._flipped(name, kept)

    def shift(self, name: str) -> float:
        """Return what the file adds to each value."""
        return 1.0 if self._names.architecture in _SHIFTED and name.endswith("norm.weight") else 0.0

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every tensor."""
        return {name: tuple(map(int, t.shape)) for name, t in (self._tensors | self._others).items()}

    def _flipped(self, name: str, values: Float32Array) -> Float32Array:
        """Turn [in, out] into [out, in] and back where llama.cpp's file and transformers differ."""
        inner = name != HEAD and name.removesuffix(".weight") in self._names.weights
        return np.ascontiguousarray(values.T) if inner and self._names.architecture in _TRANSPOSED else values
