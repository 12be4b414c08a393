"""Where sway keeps files of its own, and how a file names others."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of what can be made or fetched again: `dlm-sway` in `XDG_CACHE_HOME`, else in `~/.cache`.

    A relative `XDG_CACHE_HOME` is ignored, as the XDG specification asks: the place must not depend on where a
    command was started.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "dlm-sway"


def results_dir() -> Path:
    """Return the folder of per-position results that outlive a run."""
    return cache_dir() / "results"


def way_from(folder: Path, path: Path) -> str:
    """Return `path` relative to a folder, so that it leads there as the system walks it.

    Behind a link to a folder, `..` is where the folder really is and not where the link is. Only where the short way
    would lead elsewhere for that are links taken out: one in a name, such as `latest`, is meant to be followed later.
    """
    there, home = path.absolute(), folder.absolute()
    near = os.path.relpath(there, home)
    if os.path.realpath(home / near) == os.path.realpath(there):
        return near
    return os.path.relpath(Path(os.path.realpath(there.parent)) / there.name, os.path.realpath(home))
