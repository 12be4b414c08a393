"""What of a checkpoint the model owns: files also carry buffers that it computes anew and layers that it never builds.

Who saves the loaded model writes neither, so that they are missing from a right merge.
"""

from __future__ import annotations

import re
from typing import Final

from dlm_sway.adapters.base_files import BaseFiles

_BUFFERS: Final = frozenset(
    {"masked_bias", "inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "position_ids"},
)
_MASK_AXES: Final = 4
"""GPT-2 and its kin call their causal mask [1, 1, n, n] a bias."""
_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_PREDICTORS: Final = re.compile(r"(?:^|\.)mtp\.")
"""Multi-token prediction, which transformers leaves out."""


def owned_by_model(files: BaseFiles) -> frozenset[str]:
    """Return the parameters in `files` that a model loaded from them has."""
    n_layers = files.config.get("num_hidden_layers", files.config.get("n_layer"))
    axes = {name: len(info.shape) for name, (_, info) in files.parameters.items()}
    return frozenset(name for name, n in axes.items() if not (_is_buffer(name, n) or _is_unbuilt(name, n_layers)))


def _is_buffer(name: str, n_axes: int) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf in _BUFFERS or (leaf == "bias" and n_axes == _MASK_AXES)


def _is_unbuilt(name: str, n_layers: object) -> bool:
    layer = _LAYER.search(name)
    beyond = isinstance(n_layers, int) and layer is not None and int(layer[1]) >= n_layers
    return beyond or _PREDICTORS.search(name) is not None
