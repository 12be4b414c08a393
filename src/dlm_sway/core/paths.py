"""Where sway keeps files of its own."""

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
