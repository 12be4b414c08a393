"""Where a base model's files are on this machine; the network is never asked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm_sway.core.errors import AdapterError

SINGLE_NAME: Final = "model.safetensors"
INDEX_NAME: Final = "model.safetensors.index.json"
_HUB_ID: Final = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
_REVISION: Final = re.compile(r"^[\w.-]+(/[\w.-]+)*$")
_CACHED: Final = re.compile(r"^models--(?P<id>.+)$")


@dataclass(frozen=True, slots=True)
class BaseLocation:
    """A base's directory, or why there is none to read.

    Attributes:
        directory: holds safetensors files; None when `reason` says why not.
        reason: what is missing; empty when `directory` is set.
        remedy: how to mend it; empty when `directory` is set.
    """

    directory: Path | None
    reason: str = ""
    remedy: str = ""


def locate_base(name: str, *, revision: str | None = None, must_exist: bool = True) -> BaseLocation:
    """Return where the base `name` lies: a local directory, or a Hub id whose files are in the Hub cache.

    The cache is read by its documented layout (`models--org--name/refs`, `/snapshots`) under `HF_HUB_CACHE`,
    `HF_HOME` or the default, so that the static checks work without huggingface_hub installed.

    Args:
        name: a directory or a Hub id.
        revision: branch, tag or commit of a Hub id; `main` when None.
        must_exist: raise for a path that does not exist. False for the base that an adapter records, which was a path
            on the machine that trained it.

    Raises:
        AdapterError: `name` is a path that does not exist.
    """
    path = _local_path(name)
    if path is not None and path.is_dir():
        return _with_weights(path, name=name)
    if path is not None:
        return BaseLocation(None, f"base {name} is a file", "name a directory with safetensors weights as --base")
    if not _HUB_ID.match(name) or ".." in name:
        if not must_exist:
            return BaseLocation(None, f"base {name} is not on this machine", "name its directory as --base")
        raise AdapterError("no such base model", where=name, remedy="name a directory or a Hub id as --base")
    snapshot = _cached_snapshot(name, revision=revision or "main")
    if snapshot is None:
        return BaseLocation(
            None,
            f"base {name} is neither a directory nor in the Hub cache",
            f"run `hf download {name}`, or name its directory as --base",
        )
    return _with_weights(snapshot, name=name)


def same_base(left: str, right: str) -> bool:
    """Return whether two names may mean the same base: equal Hub ids, or equal last parts where one is a path.

    The case and a trailing slash do not count, and a directory inside the Hub cache counts as its Hub id.
    """
    first, second = _normalised(left), _normalised(right)
    if _is_path(left) or _is_path(right) or "/" not in first or "/" not in second:
        return first.rpartition("/")[2] == second.rpartition("/")[2]
    return first == second


def _local_path(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a path, `~` of nobody, a NUL: then it is no path
        return None


def _normalised(name: str) -> str:
    for part in Path(name).parts:
        if match := _CACHED.match(part):
            return match["id"].replace("--", "/").lower()
    return name.replace("\\", "/").rstrip("/").lower()


def _is_path(name: str) -> bool:
    if any(_CACHED.match(part) for part in Path(name).parts):
        return False
    return not _HUB_ID.match(name) or _local_path(name) is not None


def _with_weights(directory: Path, *, name: str) -> BaseLocation:
    # `exists` follows links: in the Hub cache a file is a link, dangling after an interrupted download.
    if (directory / SINGLE_NAME).exists() or (directory / INDEX_NAME).exists():
        return BaseLocation(directory)
    return BaseLocation(
        None,
        f"base {name} has no safetensors weights",
        f"sway reads no pickles: save it once more with `model.save_pretrained`, or run `hf download {name}`",
    )


def _cached_snapshot(name: str, *, revision: str) -> Path | None:
    repo = _hub_cache() / f"models--{name.replace('/', '--')}"
    if not _REVISION.match(revision) or ".." in revision:
        return None  # it comes from the adapter, and must not lead out of the cache
    try:
        reference = repo / "refs" / revision
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
        snapshot = repo / "snapshots" / commit
        return snapshot if snapshot.is_dir() else None
    except (OSError, ValueError):
        return None


def _hub_cache() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(variable):
            return Path(value).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"
