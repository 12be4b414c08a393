"""Which base a result stands on: its version and the content of its files, found without reading all weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.tensors import TensorFile, TensorInfo
from dlm_sway.core.errors import SwayError
from dlm_sway.suite.provenance import sha256_of

_SNAPSHOTS: Final = "snapshots"
_MOST: Final = 1024  # tensors that are sampled; a mixture of experts has tens of thousands
_SAMPLE_BYTES: Final = 256


def base_files(base: str, *, revision: str | None = None) -> dict[str, Any]:
    """Return revision, hash of the config, sizes of the files and a hash of samples of the weights, as far as known.

    Args:
        base: a directory, or a Hub id whose files are in the Hub cache.
        revision: branch, tag or commit of a Hub id.
    """
    try:
        folder = locate_base(base, revision=revision).directory
    except SwayError:
        folder = None
    if folder is None:
        return {"revision": revision}
    files = sorted(folder.glob("*.safetensors"))
    return {
        "revision": folder.name if folder.parent.name == _SNAPSHOTS else revision,
        "config_sha256": sha256_of(folder / "config.json"),
        "weights_bytes": {path.name: path.stat().st_size for path in files},
        "weights_sample_sha256": _sampled(files),
    }


def _sampled(files: Sequence[Path]) -> str | None:
    """Return a hash of all tensors' names, types and shapes and of some bytes of each, None where a file is damaged.

    Two models of one architecture have files of the same size. Training moves nearly every number of a tensor, so a
    few bytes of each tell them apart, in milliseconds where a hash of the files takes seconds a gigabyte.
    """
    try:
        tensors = [(path, info) for path in files for info in TensorFile(path).infos.values()]
        tensors.sort(key=lambda each: (each[1].name, each[0].name))
        total = hashlib.sha256(json.dumps([(i.name, i.dtype, i.shape) for _, i in tensors]).encode())
        for path, info in _some(tensors):
            total.update(_middle(path, info))
    except (SwayError, OSError):
        return None
    return total.hexdigest()


def _some(tensors: Sequence[tuple[Path, TensorInfo]]) -> Sequence[tuple[Path, TensorInfo]]:
    """Return as many as are sampled, in an order by chance: every tenth could be the same module of each layer."""
    if len(tensors) <= _MOST:
        return tensors
    return sorted(tensors, key=lambda each: hashlib.sha256(each[1].name.encode()).digest())[:_MOST]


def _middle(path: Path, info: TensorInfo) -> bytes:
    n = min(_SAMPLE_BYTES, info.n_bytes)
    with path.open("rb") as handle:
        handle.seek(info.start + (info.n_bytes - n) // 2)
        return handle.read(n)
