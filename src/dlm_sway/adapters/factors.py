"""The LoRA factors of an adapter, paired by module."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.adapters.inspection import ModuleKind
from dlm_sway.adapters.naming import FACTORS_A, FACTORS_B, Part, TensorKey
from dlm_sway.adapters.tensors import TensorFile, TensorInfo

MATRIX_AXES: Final = 2


@dataclass(frozen=True, slots=True)
class FactorPair:
    """The two LoRA factors of a module, either of which may be absent.

    Attributes:
        module: name in the base.
        kind: what the adapted module is, as far as the factors and the config tell.
        a: the factor on the input side, stored [r, in, ...].
        b: the factor on the output side, stored [out, r, ...].
    """

    module: str
    kind: ModuleKind
    a: TensorInfo | None
    b: TensorInfo | None

    @property
    def rank(self) -> int | None:
        """The rank of the stored factors, as A has it, else as B has it."""
        if self.a is not None and self.a.shape:
            return self.a.shape[0]
        return self.b.shape[1] if self.b is not None and len(self.b.shape) >= MATRIX_AXES else None

    @property
    def is_multipliable(self) -> bool:
        """Whether B A is the change of the module: both are there, hold values, and agree on the rank."""
        if self.a is None or self.b is None or min(len(self.a.shape), len(self.b.shape)) < MATRIX_AXES:
            return False
        agree = self.a.shape[0] == self.b.shape[1] and self.a.n_elements > 0 and self.b.n_elements > 0
        return agree and self.kind != "parameter"

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the factors that are there."""
        return tuple(info.name for info in (self.a, self.b) if info is not None)


def pairs_of(file: TensorFile, keys: Iterable[TensorKey], *, config: AdapterConfig) -> dict[str, FactorPair]:
    """Return the factor pairs by module, in the order of the modules' names."""
    a, b, embeddings = {}, {}, set()
    for key in keys:
        if key.part in FACTORS_A:
            a[key.module] = file.infos[key.name]
        if key.part in FACTORS_B:
            b[key.module] = file.infos[key.name]
        if key.part in {Part.EMBEDDING_A, Part.EMBEDDING_B}:
            embeddings.add(key.module)
    pairs = {}
    for module in sorted(a.keys() | b.keys()):
        first, second = a.get(module), b.get(module)
        n_axes = max(len(info.shape) for info in (first, second) if info is not None)
        kind = "embedding" if module in embeddings else _kind(module, n_axes=n_axes, config=config)
        pairs[module] = FactorPair(module, kind, first, second)
    return pairs


def _kind(module: str, *, n_axes: int, config: AdapterConfig) -> ModuleKind:
    owner = _WRAPPERS.sub("", module)
    if any(_owns(owner, parameter) for parameter in config.target_parameters):
        return "parameter"
    return "linear" if n_axes <= MATRIX_AXES else "conv"


# PEFT wraps a module once for each adapted parameter, so each further one's factors lie under one more `base_layer`.
_WRAPPERS: Final = re.compile(r"(?:\.base_layer)+$")


def _owns(module: str, parameter: str) -> bool:
    # For a mixture of experts PEFT writes the bare names `gate_up_proj` and `down_proj`, which name no owner; the
    # modules that hold them, with all experts of a layer in one tensor, are called `experts` in nearly every model.
    owner = parameter.rpartition(".")[0]
    return module == owner or module.endswith(f".{owner}" if owner else "experts")
