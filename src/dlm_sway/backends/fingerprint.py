"""What a loaded model's numbers follow from, as one hash: results kept under it can never be stale.

Files are known by their content. A file of the base is hashed once a version; those of the adapter every time, so
that an adapter retrained in place is another adapter however alike its files look.
"""

from __future__ import annotations

import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.backends.trained_tokenizer import FILES as OF_TOKENIZER
from dlm_sway.core.errors import AdapterError
from dlm_sway.core.store import ResultStore

if TYPE_CHECKING:
    from dlm_sway.core.model import ModelSpec

_OF_BASE: Final = frozenset({".jinja", ".json", ".model", ".py", ".safetensors", ".txt"})
_CONFIG: Final = "adapter_config.json"
_PACKAGES: Final = ("numpy", "peft", "tokenizers", "torch", "transformers")
_SETTLED_NS: Final = 2 * 10**9  # the clock of a file system ticks in steps, within which two versions look alike


@runtime_checkable
class Fingerprinted(Protocol):
    """A backend whose results may be kept beyond the run."""

    def fingerprint(self, memo: ResultStore | None = None) -> str | None:
        """Return a hash of all that its numbers follow from, or None where that cannot be known.

        Args:
            memo: keeps the hashes of large files between runs.
        """
        ...


def fingerprint(
    spec: ModelSpec,
    *,
    adapter: Path,
    computing: tuple[str, ...],
    loaded_ns: int,
    adapter_ns: int | None = None,
    memo: ResultStore | None,
    whole: bool = False,
    packages: tuple[str, ...] = _PACKAGES,
) -> str | None:
    """Return the hash of a base with its adapter, or None if files are not to be found or changed since loading.

    Args:
        spec: what was loaded.
        adapter: directory of the adapter, or of a whole fine-tuned model.
        computing: how it computes, such as dtype and kind of device.
        loaded_ns: when loading began, in ns since 1970.
        adapter_ns: when loading the adapter began, where it was put on a base that was there; else `loaded_ns`.
        memo: keeps the hashes of the base's files between runs.
        whole: whether `adapter` is a whole model.
        packages: whose versions the numbers depend on.
    """
    try:
        base = locate_base(spec.base, revision=spec.revision).directory
        began = loaded_ns, loaded_ns if adapter_ns is None else adapter_ns
        files = None if base is None else _files(base, adapter, began=began, memo=memo, whole=whole)
    except (AdapterError, OSError):
        return None
    if files is None:
        return None
    loading = spec.model_dump(mode="json", include={"quantization", "trust_remote_code", "options"})
    parts = (files, loading, computing, {name: version(name) for name in packages})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _files(
    base: Path, adapter: Path, *, began: tuple[int, int], memo: ResultStore | None, whole: bool
) -> tuple[dict[str, str], ...] | None:
    of_base = _of_model(base)
    of_adapter = _of_model(adapter) if whole else _of_adapter(adapter)
    digests = {p.name: file_digest(p, memo) for p in of_base}, {p.name: file_digest(p) for p in of_adapter}
    # Looked at last: what has not changed by now was hashed as it was loaded.
    changed = any(_changed(paths, since) for paths, since in zip((of_base, of_adapter), began, strict=True))
    return None if changed else digests


def _changed(paths: list[Path], since: int) -> bool:
    return any(p.stat().st_ctime_ns >= since for p in paths)


def _of_model(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in _OF_BASE and p.is_file())


def _of_adapter(folder: Path) -> list[Path]:
    named = {_CONFIG, *OF_TOKENIZER}
    return sorted(p for p in folder.iterdir() if p.name in named or p.suffix == ".safetensors")


def file_digest(path: Path, memo: ResultStore | None = None) -> str:
    """Return the sha256 of a file's content, from `memo` where this version of the file was hashed before.

    A version is device, inode, size and both times; the time of the last change of the inode cannot be set back.
    """
    stat = path.stat()
    of_version = ("file", stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    key = hashlib.sha256(json.dumps(of_version).encode()).digest()
    if memo is not None and len(known := memo.get_many([key]).get(key, b"")) == hashlib.sha256().digest_size:
        return known.hex()
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")
    if memo is not None and time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS:
        memo.put_many({key: digest.digest()})
    return digest.hexdigest()
