"""Everything the checks look at, gathered once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dlm_sway.adapters.base_files import BaseFiles
from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.adapters.factors import FactorPair, pairs_of
from dlm_sway.adapters.inspection import ModuleRow
from dlm_sway.adapters.naming import Part, TensorKey, parse_name
from dlm_sway.adapters.targets import is_embedding, is_output_head, is_saved_module
from dlm_sway.adapters.tensor_stats import TensorStats
from dlm_sway.adapters.tensors import TensorFile

OWN_PARAMETERS = frozenset({Part.WHOLE, Part.BIAS})


@dataclass(frozen=True)
class Facts:
    """An adapter's config and file, the base it is compared with, and the figures taken from both.

    Attributes:
        directory: the adapter directory.
        config: its config.
        file: its weights.
        stats: the sanity of each tensor that can be read.
        base: the base's files, or None when they could not be read.
        rows: one a module; empty until they are measured.
    """

    directory: Path
    config: AdapterConfig
    file: TensorFile
    stats: Mapping[str, TensorStats]
    base: BaseFiles | None
    rows: tuple[ModuleRow, ...] = field(default=())

    @cached_property
    def keys(self) -> tuple[TensorKey, ...]:
        """Every tensor's name, taken apart."""
        return tuple(parse_name(name) for name in self.file.infos)

    @cached_property
    def pairs(self) -> dict[str, FactorPair]:
        """The LoRA factors by module; empty for methods other than LoRA, whose factors mean something else."""
        return pairs_of(self.file, self.keys, config=self.config) if self.config.is_lora else {}

    @cached_property
    def saved_parameters(self) -> tuple[TensorKey, ...]:
        """The parameters of modules that the config says were trained whole."""
        own = (key for key in self.keys if key.part in OWN_PARAMETERS)
        return tuple(key for key in own if is_saved_module(self.config, key.module))

    @cached_property
    def stray_parameters(self) -> tuple[TensorKey, ...]:
        """The base's own parameters that are in the file though `modules_to_save` does not name them."""
        own = (key for key in self.keys if key.part in OWN_PARAMETERS)
        return tuple(key for key in own if not is_saved_module(self.config, key.module))

    def weight_shape(self, module: str) -> tuple[int, ...] | None:
        """Return the shape of the weight that a module's factors must fit, or None when it is not known.

        A weight that was saved along with the adapter, such as an embedding resized for new tokens, comes first.
        """
        parameter = f"{module}.weight"
        own = next((key for key in self.keys if key.part is Part.WHOLE and key.parameter == parameter), None)
        if own is not None:
            return self.file.infos[own.name].shape
        return None if self.base is None else self.base.shape(parameter)

    def is_resized(self, key: TensorKey) -> bool:
        """Return whether a saved embedding or head differs from the base's in the number of tokens alone."""
        found, expected = self.file.infos[key.name].shape, None if self.base is None else self.base.shape(key.parameter)
        if expected is None or not (is_embedding(key.module) or is_output_head(key.module)) or not found:
            return False
        return found[0] != expected[0] and found[1:] == expected[1:]

    def fans(self, module: str) -> tuple[int, tuple[int, ...]] | None:
        """Return (out, input axes) of the module's weight as the factors see it, or None when it is not known.

        An embedding's weight is stored [tokens, width] and reads tokens; GPT-2's Conv1D is stored [in, out].
        """
        shape, pair = self.weight_shape(module), self.pairs.get(module)
        if shape is None or len(shape) <= 1 or pair is None or pair.kind == "parameter":
            return None
        if pair.kind == "embedding":
            return shape[1], (shape[0],)
        transposed = self.base is not None and self.base.is_transposed(
            module, fan_in_fan_out=self.config.fan_in_fan_out
        )
        return (shape[1], (shape[0],)) if transposed and len(shape) == 2 else (shape[0], shape[1:])  # noqa: PLR2004
