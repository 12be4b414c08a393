"""How large a suite file may be: what writes suites goes by what is read."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 4 * 2**20
MAX_NODES: Final = 200_000  # values, each alias counted as what it names
