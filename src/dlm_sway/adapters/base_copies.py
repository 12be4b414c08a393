"""Parameters of the base that an adapter's file holds too: which are PEFT's own copies, and whether they are equal."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

import numpy as np

from dlm_sway.adapters.base_files import BaseFiles
from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.adapters.dtypes import Float32Array, is_readable
from dlm_sway.adapters.naming import Part, TensorKey
from dlm_sway.adapters.tensors import TensorFile

_EPSILON: Final = {"BF16": 2.0**-8, "F16": 2.0**-11}


def is_copy(key: TensorKey, *, adapted: Collection[str], config: AdapterConfig) -> bool:
    """Return whether a tensor is what lies under the factors of an embedding or head, which PEFT saves by default.

    Nothing trains it, so it is the weight of the base that training began with.

    Args:
        key: the tensor's name, taken apart.
        adapted: the modules with factors.
        config: the adapter's, which says whether biases were trained.
    """
    frozen = key.part is Part.WHOLE or (key.part is Part.BIAS and config.bias == "none")
    return frozen and ".base_layer." in key.name and key.module in adapted


def equals_base(file: TensorFile, key: TensorKey, *, base: BaseFiles) -> bool:
    """Return whether the base holds the same parameter with the same values, up to rounding of the coarser format."""
    info = file.infos[key.name]
    if not is_readable(info.dtype) or not base.holds(key.parameter, shape=info.shape):
        return False
    tolerance = max(_EPSILON.get(dtype, 0.0) for dtype in (info.dtype, base.dtype(key.parameter)))
    pairs = paired_blocks(file, key, base=base)
    return all(np.allclose(new, old, rtol=tolerance, atol=0.0) for new, old in pairs)


def paired_blocks(file: TensorFile, key: TensorKey, *, base: BaseFiles) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield (adapter's, base's) values of a parameter that both hold in one shape, block by block."""
    return zip(file.blocks(key.name), base.blocks(key.parameter), strict=True)
