"""What a suite will take, in seconds, before any model is loaded."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

from dlm_sway.adapters.base_files import open_base
from dlm_sway.core.errors import AdapterError, BadInputError

SECONDS_PER_TOKEN: Final = 1.0e-3
"""A view-token of the reference model on two cores in fp32, engine and all (docs/performance.md)."""
REFERENCE_WEIGHTS: Final = 134.5e6
START: Final = 12.0  # loading, the numeric floor and the report
GENERATED: Final = 3.0  # a token that is written costs about so many that are read: passes of one token a row
_BUDGET: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)$")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE: Final = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)\s*([mb])(?![a-z0-9])", re.IGNORECASE)
_BYTES_PER_PACKED: Final = 0.6  # four bits, and the scales


def parse_budget(text: str) -> float:
    """Return the seconds that `90s`, `10m` or `1h` means.

    Raises:
        BadInputError: it is none of these, or nothing could be done in it.
    """
    match = _BUDGET.match(text.strip().lower())
    if match is None:
        raise BadInputError(f"{text!r} is no time", remedy="give a number with s, m or h, such as 10m")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds <= START:
        what = f"{text} is less than it takes to load a model"
        raise BadInputError(what, remedy="give 1m or more")
    return seconds


def weights_of(base: str) -> float | None:
    """Return about how many weights a base has, from its files or from its name (`135M`, `0.5B`); else None."""
    folder = Path(base)
    if folder.is_dir() and (found := _weights_in(folder)):
        return found
    match = _SIZE.search(Path(base).name)
    return None if match is None else float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6)


def _weights_in(folder: Path) -> float:
    """Return how many weights the files of a base hold; of packed ones their size tells."""
    try:
        files = open_base(folder)
    except AdapterError:
        return 0.0  # the run will say what is wrong with it; here it is of unknown size
    if files.is_quantised:
        return sum(p.stat().st_size for p in folder.glob("*.safetensors")) / _BYTES_PER_PACKED
    return float(sum(math.prod(info.shape) for _, info in files.parameters.values()))


def seconds(view_tokens: float, weights: float | None) -> float:
    """Return about how long `view_tokens` take on two CPU cores; a base of unknown size counts as the reference."""
    return view_tokens * SECONDS_PER_TOKEN * (weights or REFERENCE_WEIGHTS) / REFERENCE_WEIGHTS


def clock(seconds_: float) -> str:
    """Return a time for a reader: `40 s`, `3 min`, `1.5 h`."""
    if seconds_ < 100:  # noqa: PLR2004 (a reader's unit)
        return f"{seconds_:.0f} s"
    return f"{seconds_ / 60:.0f} min" if seconds_ < 100 * 60 else f"{seconds_ / 3600:.1f} h"
