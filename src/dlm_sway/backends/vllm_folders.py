"""Adapters as folders, for a runtime that loads nothing else: each view written when it is first asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Final

from dlm_sway.adapters.lora import Lora
from dlm_sway.adapters.variants import variant, write_plain
from dlm_sway.core.views import View

_KEPT: Final = 8


class Folders:
    """A temporary directory with a PEFT folder a view, the last few of them."""

    def __init__(self, lora: Lora, *, base: str) -> None:
        """Write variants of `lora`, which stands on `base`."""
        self._lora, self._base = lora, base
        self._root = tempfile.TemporaryDirectory(prefix="sway-vllm-")
        self._numbers: dict[View, int] = {}
        self._there: OrderedDict[int, Path] = OrderedDict()

    def of(self, view: View) -> tuple[int, Path]:
        """Return the number of a view, the same whenever it is asked for and at least 1, and its folder."""
        number = self._numbers.setdefault(view, len(self._numbers) + 1)
        if number not in self._there:
            self._write(view, number)
        self._there.move_to_end(number)
        return number, self._there[number]

    def close(self) -> None:
        """Remove all of them; calling it twice is harmless."""
        self._there.clear()
        self._root.cleanup()

    def _write(self, view: View, number: int) -> None:
        while len(self._there) >= _KEPT:
            shutil.rmtree(self._there.popitem(last=False)[1])
        out = Path(self._root.name) / str(number)
        write_plain(variant(self._lora, view), out, base=self._base)
        self._there[number] = out
