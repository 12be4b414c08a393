"""A base model as its files describe it: names and shapes of its weights, and the facts of its config."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from dlm_sway.adapters.base_location import INDEX_NAME, SINGLE_NAME
from dlm_sway.adapters.dtypes import Float32Array, is_readable
from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.adapters.spectra import spectral_norm
from dlm_sway.adapters.targets import is_embedding, is_output_head
from dlm_sway.adapters.tensor_stats import norm_of
from dlm_sway.adapters.tensors import TensorFile, TensorInfo
from dlm_sway.core.errors import AdapterError

_EXACT_ELEMENTS: Final = 1 << 22
_MOST_ELEMENTS: Final = 1 << 26
_SAMPLE_BLOCKS: Final = 64
_SAMPLE_BLOCK_ELEMENTS: Final = 1 << 14
_WEIGHTS: Final = (".weight", ".qweight", ".weight_packed", ".W_q")
"""Ends of the names of a module's weight: as it is, and packed by GPTQ and AWQ, compressed-tensors, and HQQ."""
_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_CONV1D_TYPES: Final = frozenset({"gpt2", "openai-gpt", "imagegpt"})
_INPUT_EMBEDDINGS: Final = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
# A checkpoint saved from a model without its head lacks the head model's prefix, and transformers puts it back on
# loading; the first part of its names tells which. Modules are named here as they are after loading.
_HEADLESS_ROOTS: Final = {
    "layers": "model", "embed_tokens": "model", "decoder": "model",
    "h": "transformer", "wte": "transformer", "word_embeddings": "transformer",
    "embed_in": "gpt_neox",
}  # fmt: skip

# By model type: output heads that transformers calls otherwise than the checkpoint does.
_RENAMED_HEADS: Final[Mapping[str, Mapping[str, str]]] = {"gpt_neox": {"embed_out": "lm_head"}}


@dataclass(frozen=True)
class BaseFiles:
    """The base's weights by the names that they have in the loaded model, and what its config.json says.

    Attributes:
        directory: where the files are.
        config: config.json as it is; empty when absent.
        parameters: file and tensor of each parameter, by parameter name.
    """

    directory: Path
    config: Mapping[str, Any]
    parameters: Mapping[str, tuple[TensorFile, TensorInfo]]

    @cached_property
    def modules(self) -> frozenset[str]:
        """Every module with a weight, quantised ones and a tied output head included."""
        found = {name.rpartition(".")[0] for name in self.parameters if name.endswith(_WEIGHTS)}
        return frozenset(found | ({"lm_head"} if self.tied else set()))

    @cached_property
    def adaptable(self) -> tuple[str, ...]:
        """The modules that PEFT could adapt: weights of two or more axes, in layers that the model builds."""
        return tuple(sorted(module for module in self.modules if self._is_adaptable(module)))

    @property
    def model_type(self) -> str:
        """The config's `model_type`, or an empty string."""
        value = self.config.get("model_type")
        return value if isinstance(value, str) else ""

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the input embedding: what the config says, else that no head was saved."""
        value = self.config.get("tie_word_embeddings")
        has_head = any(is_output_head(name.rpartition(".")[0]) for name in self.parameters)
        if isinstance(value, bool):
            return value
        return not has_head and self.embedding_module is not None

    @property
    def is_renamed_on_load(self) -> bool:
        """Whether transformers may rename or fuse modules on loading, so that file names prove little.

        True for models of several parts (a `text_config` inside) and mixtures of experts.
        """
        has_parts = any(f"{part}_config" in self.config for part in ("text", "vision", "audio"))
        return has_parts or any(".experts." in name for name in self.parameters)

    @property
    def is_quantised(self) -> bool:
        """Whether the files hold packed weights, whose shapes are not those of the modules."""
        return "quantization_config" in self.config

    @cached_property
    def embedding_module(self) -> str | None:
        """The module of the input token embedding, or None when no name is known to be one."""
        owners = [name.rpartition(".")[0] for name in self.parameters if name.endswith(".weight")]
        by_leaf = {owner.rpartition(".")[2]: owner for owner in reversed(owners)}
        return next((by_leaf[leaf] for leaf in _INPUT_EMBEDDINGS if leaf in by_leaf), None)

    def shape(self, parameter: str) -> tuple[int, ...] | None:
        """Return the shape of a parameter, or None when it is absent or packed."""
        found = self._find(parameter)
        return None if found is None or self._is_packed(found[1]) else found[1].shape

    def holds(self, parameter: str, *, shape: tuple[int, ...]) -> bool:
        """Return whether the files hold a parameter, in this shape and in a format that can be read."""
        found = self._find(parameter)
        return found is not None and self.shape(parameter) == shape and self._has_values(found[1])

    def dtype(self, parameter: str) -> str:
        """Return the number format of a parameter, or an empty string when it is absent."""
        found = self._find(parameter)
        return "" if found is None else found[1].dtype

    def has_container(self, module: str) -> bool:
        """Return whether some parameter lies inside the module `module`."""
        return module in self._containers

    def is_transposed(self, module: str, *, fan_in_fan_out: bool) -> bool:
        """Return whether the module stores its weight as [in, out] (GPT-2's Conv1D).

        PEFT looks at the layer's class and overrides the config's `fan_in_fan_out`; the class follows from the model
        type here, and the config decides only where the type is unknown.
        """
        if is_output_head(module) or is_embedding(module):
            return False
        return self.model_type in _CONV1D_TYPES if self.model_type else fan_in_fan_out

    def blocks(self, parameter: str) -> Iterator[Float32Array]:
        """Yield the values of a parameter that the files hold, in storage order, in flat float32 pieces."""
        found = self._find(parameter)
        if found is None:
            raise KeyError(parameter)
        return found[0].blocks(found[1].name)

    def norm(self, module: str) -> float | None:
        """Return the Frobenius norm of the module's weight, or None when it is absent, packed or scaled.

        Exact up to 4 Mi elements; beyond, from 64 evenly spaced blocks of 16 Ki, so that a 7B base takes seconds.
        It only serves the ratio ||delta W|| / ||W||, of which the order of magnitude matters.
        """
        found = self._find(f"{module}.weight")
        if found is None or not self._has_values(found[1]):
            return None
        file, info = found
        if info.n_elements <= _EXACT_ELEMENTS:
            return norm_of(file.blocks(info.name))
        pieces = file.spread(info.name, n_blocks=_SAMPLE_BLOCKS, block_elements=_SAMPLE_BLOCK_ELEMENTS)
        share = info.n_elements / (_SAMPLE_BLOCKS * _SAMPLE_BLOCK_ELEMENTS)
        return math.sqrt(share) * norm_of(pieces)

    def spectral(self, module: str) -> float | None:
        """Return ||W||_2 of the module's matrix, or None when it is absent, packed, not finite or over 64 Mi elements.

        Reads the whole of it, unlike `norm`.
        """
        found = self._find(f"{module}.weight")
        if found is None or not self._has_values(found[1]):
            return None
        file, info = found
        if info.n_elements > _MOST_ELEMENTS:
            return None
        weight = file.read(info.name)
        return spectral_norm(weight) if np.isfinite(weight).all() else None

    @cached_property
    def _containers(self) -> frozenset[str]:
        owners = (name.split(".")[:-1] for name in self.parameters)
        return frozenset(".".join(parts[:end]) for parts in owners for end in range(1, len(parts) + 1))

    def _find(self, parameter: str) -> tuple[TensorFile, TensorInfo] | None:
        found = self.parameters.get(parameter)
        if found is None and self.tied and parameter == "lm_head.weight":
            return self.parameters.get(f"{self.embedding_module}.weight")
        return found

    def _is_packed(self, info: TensorInfo) -> bool:
        return self.is_quantised and info.dtype in {"U8", "I8", "I32"}

    def _has_values(self, info: TensorInfo) -> bool:
        """Return whether the file holds the weight itself: FP8 is that only times a scale beside it."""
        is_scaled = self.is_quantised and info.dtype.startswith("F8")
        return not self._is_packed(info) and not is_scaled and is_readable(info.dtype)

    def _is_adaptable(self, module: str) -> bool:
        found = self._find(f"{module}.weight")
        if found is not None and len(found[1].shape) <= 1:
            return False
        n_layers, layer = self.config.get("num_hidden_layers"), _LAYER.search(f"{module}.")
        # Checkpoints carry layers that the model does not build, such as multi-token prediction heads.
        return not (isinstance(n_layers, int) and layer is not None and int(layer.group(1)) >= n_layers)


def open_base(directory: Path) -> BaseFiles:
    """Return the base in `directory`; only headers and config.json are read.

    Raises:
        AdapterError: a file is damaged, or the index names a file that is not there.
    """
    config = directory / "config.json"
    values = read_json_object(config) if config.is_file() else {}
    found = {name: (file, info) for file in _weight_files(directory) for name, info in file.infos.items()}
    root = _missing_root(found)
    heads = _RENAMED_HEADS.get(str(values.get("model_type")), {})
    named = {_name_on_load(name, root=root, heads=heads): tensor for name, tensor in found.items()}
    return BaseFiles(directory, values, named)


def _name_on_load(name: str, *, root: str, heads: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    if is_output_head(module):
        return f"{heads.get(module, module)}.{leaf}"
    return f"{root}.{name}" if root else name


def _weight_files(directory: Path) -> list[TensorFile]:
    if (directory / SINGLE_NAME).exists():
        return [TensorFile(directory / SINGLE_NAME)]
    require_whole(directory)
    return [TensorFile(directory / shard) for shard in _shards(directory)]


def require_whole(directory: Path) -> None:
    """Return if every file that the base's index names is there.

    Raises:
        AdapterError: one is not; it is named.
    """
    if missing := missing_shards(directory):
        what = f"names {missing[0]}, which is not there"
        raise AdapterError(what, where=directory / INDEX_NAME, remedy="download the base again")


def missing_shards(directory: Path) -> tuple[str, ...]:
    """Return the files that the base's index names and that are not beside it; none where one file holds all weights.

    Raises:
        AdapterError: the index is damaged.
    """
    if (directory / SINGLE_NAME).exists():
        return ()
    # A link in the Hub cache dangles after an interrupted download, and a name with folders leads out of this one.
    return tuple(s for s in _shards(directory) if Path(s).name != s or not (directory / s).exists())


def _shards(directory: Path) -> list[str]:
    index = directory / INDEX_NAME
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise AdapterError("holds no weight_map", where=index, remedy="download the base again")
    return sorted(set(names.values()))


def _missing_root(names: Mapping[str, object]) -> str:
    roots = {name.partition(".")[0] for name in names}
    return next((root for first, root in _HEADLESS_ROOTS.items() if first in roots and root not in roots), "")
