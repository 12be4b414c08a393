"""Plain text: paragraphs where blank lines part them, else lines; JSONL where the first line is a JSON object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.files import lines
from dlm_sway.data.jsonl import is_object
from dlm_sway.data.paragraphs import joined, paragraphs
from dlm_sway.data.reading import Record
from dlm_sway.data.registry import Reader, reader_class, register

_TABLES: Final = frozenset({".csv", ".tsv"})
_AS_JSONL: Final = "save it as JSONL: `pandas.read_csv(FILE).to_json(OUT, orient='records', lines=True)`"


@register("text")
class TextReader(Reader):
    """Reads UTF-8 text: a section a paragraph, or a line where no blank line stands between two of them."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".text")

    def read(self, name: str) -> Iterator[Record]:
        """Yield paragraphs or lines as prose; the file is read twice, and never as a whole."""
        path = Path(name)
        if _is_jsonl(path):
            yield from reader_class("jsonl")().read(name)
            return
        if path.suffix.lower() in _TABLES:
            what = "is a table, whose lines are no texts to learn"
            raise BadInputError(what, where=name, remedy=_AS_JSONL)
        if _has_paragraphs(path):
            for block in paragraphs(lines(path)):
                yield Section("prose", "", joined(block), name, block[0][0])
        else:
            for number, text in lines(path):
                if text.strip():
                    yield Section("prose", "", text, name, number)


def _is_jsonl(path: Path) -> bool:
    first = next((text for _, text in lines(path) if text.strip()), "")
    return is_object(first)


def _has_paragraphs(path: Path) -> bool:
    """Return whether a blank line stands between two that are not."""
    begun = parted = False
    for _, text in lines(path):
        if text.strip():
            if parted:
                return True
            begun = True
        elif begun:
            parted = True
    return False
