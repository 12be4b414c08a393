"""A plain LoRA as numbers: what every format of it holds, and what a format without DoRA or biases must refuse."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from dlm_sway.adapters.base_copies import equals_base, is_copy
from dlm_sway.adapters.base_files import open_base
from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.config import AdapterConfig, load_config, require_layers_of_base
from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.adapters.factors import pairs_of
from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.naming import FACTORS_A, FACTORS_B, Part, TensorKey, parse_name
from dlm_sway.adapters.tensors import TensorFile
from dlm_sway.adapters.weights_file import open_weights
from dlm_sway.core.errors import AdapterError

_SHOWN: Final = 3
_HOLDS_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True, eq=False)
class LoraFactors:
    """What one module adds to its weight: `scale * b @ a`.

    Attributes:
        a: float32[r, d_in]; of an embedding [r, vocabulary].
        b: float32[d_out, r]; of an embedding [hidden, r].
        scale: alpha / r, or what stands for it.
        kind: whether the module multiplies by its weight or looks rows up in it.
        magnitude: DoRA's trained length of each row of the sum, float32[d_out]; None without DoRA.
    """

    a: Float32Array
    b: Float32Array
    scale: float
    kind: Literal["linear", "embedding"] = "linear"
    magnitude: Float32Array | None = None

    @property
    def rank(self) -> int:
        """Number of directions r."""
        return int(self.a.shape[0])

    def delta(self) -> Float32Array:
        """Return float32[d_out, d_in], the change of the weight."""
        return np.asarray(np.float32(self.scale) * (self.b @ self.a), dtype=np.float32)


Lora: TypeAlias = Mapping[str, LoraFactors]
"""Factors by module name in the base."""


def read_peft_lora(
    adapter: Path, *, also: Collection[Part] = (), base: str | None = None
) -> tuple[Lora, AdapterConfig]:
    """Return the factors of a PEFT directory and its config.

    Args:
        adapter: the directory.
        also: what else the caller has a use for: magnitudes (DoRA), factors of embeddings, or whole tensors, which are
            no part of the result.
        base: directory or Hub id of the base; by default the one that the adapter records. Where it is here, what the
            adapter holds of it must be equal.

    Raises:
        AdapterError: it cannot be read, or holds more than plain LoRA on linear modules of the base and `also`; what,
            and where, is named.
    """
    config = load_config(adapter)
    require_layers_of_base(config, where=adapter)
    if reason := _refusal(config, dora=Part.MAGNITUDE in also):
        raise AdapterError(reason, where=adapter, remedy=_REMEDY)
    file = open_weights(adapter)
    if isinstance(file, Fault):
        raise AdapterError(file.message, where=adapter, remedy=file.remedy)
    known = frozenset({Part.LORA_A, Part.LORA_B, *also})
    keys = [parse_name(name) for name in file.infos]
    copies = _copies(keys, config, known)
    _require_equal(copies, file, config, adapter, base)
    return _read(file, [key for key in keys if key not in copies], config, adapter, known), config


_REMEDY: Final = "merge it into the base in fp32 and convert that, or serve it with PEFT"


def _refusal(config: AdapterConfig, *, dora: bool) -> str | None:
    init = config.init_lora_weights
    if not config.is_lora:
        return f"a {config.peft_type or 'nameless'} adapter has no low-rank factors of LoRA's kind"
    if config.use_dora and not dora:
        return "DoRA rescales whole rows, which factors alone cannot say"
    if isinstance(init, str) and init.lower().startswith(_HOLDS_BASE):
        return f"it began as {init}, so its factors also hold a part of the base"
    if config.variant is not None:
        return f"with {config.variant} a module computes something else than W x + s B A x"
    return None


def _copies(keys: Collection[TensorKey], config: AdapterConfig, known: Collection[Part]) -> list[TensorKey]:
    adapted = {key.module for key in keys if key.part in FACTORS_A | FACTORS_B}
    return [key for key in keys if key.part not in known and is_copy(key, adapted=adapted, config=config)]


def _require_equal(
    copies: Collection[TensorKey], file: TensorFile, config: AdapterConfig, adapter: Path, base: str | None
) -> None:
    name = base or config.base_model_name_or_path
    if not copies or name is None:
        return
    folder = locate_base(name, revision=config.base_revision(base), must_exist=base is not None).directory
    files = None if folder is None else open_base(folder)
    for key in copies:
        # A weight that is absent or packed has no shape to be read, and nothing to compare with.
        if files is not None and files.shape(key.parameter) and not equals_base(file, key, base=files):
            what = f"holds {key.name}, which is not the {key.parameter} of the base {name}"
            raise AdapterError(what, where=adapter, remedy="name the base it was trained on")


def _read(
    file: TensorFile, keys: Collection[TensorKey], config: AdapterConfig, adapter: Path, known: Collection[Part]
) -> Lora:
    if others := [key.name for key in keys if key.part not in known]:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        what = f"holds tensors that are no factors of a linear module: {', '.join(others[:_SHOWN])}{more}"
        raise AdapterError(what, where=adapter, remedy=_REMEDY)
    lengths = {key.module: key.name for key in keys if key.part is Part.MAGNITUDE}
    found: dict[str, LoraFactors] = {}
    for module, pair in pairs_of(file, keys, config=config).items():
        kind = pair.kind
        if kind == "parameter":
            what = f"{module} is adapted as a whole (target_parameters), and so is no linear module"
            raise AdapterError(what, where=adapter, remedy=_REMEDY)
        if pair.a is None or pair.b is None or not (kind in ("linear", "embedding") and pair.is_multipliable):
            raise AdapterError(
                f"{module} has no pair of factors for a linear module", where=adapter, remedy=f"sway inspect {adapter}"
            )
        magnitude = file.read(lengths[module]) if module in lengths else None
        a, b = file.read(pair.a.name), file.read(pair.b.name)
        found[module] = LoraFactors(a, b, config.scale_of(module), kind, magnitude)
    return found
