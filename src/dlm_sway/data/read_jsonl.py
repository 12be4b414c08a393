"""JSONL: one object on each line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from dlm_sway.data.files import lines
from dlm_sway.data.jsonl import parse_line
from dlm_sway.data.reading import Record
from dlm_sway.data.registry import Reader, register


@register("jsonl")
class JsonlReader(Reader):
    """Reads one JSON object a line; blank lines part nothing and count as nothing."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def read(self, name: str) -> Iterator[Record]:
        """Yield a record a line."""
        for number, text in lines(Path(name)):
            if text.strip():
                yield parse_line(text, source=name, number=number)
