"""The control corpus: plain text on which a fine-tune must do no harm."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from dlm_sway.data.shipped import damaged, interleaved, json_lines, jsonl_files

_WHAT: Final = "control corpus"
_FIELDS = ("id", "register", "text")


@dataclass(frozen=True, slots=True)
class ControlPassage:
    """One passage of the control corpus.

    Attributes:
        id: unique name, such as `prose-001`; it survives edits of other passages.
        register: the kind of text, such as `prose`; harm is judged by register.
        text: the passage, about 80 to 250 tokens, without a trailing newline.
    """

    id: str
    register: str
    text: str


@cache
def control_passages() -> tuple[ControlPassage, ...]:
    """Return the shipped passages, registers interleaved, in the same order on every machine.

    Every prefix is balanced: as long as no register has run out, any two differ by at most one passage. A probe
    may therefore stop reading as soon as its bound is decided, without favouring a register.

    Raises:
        CannotRunError: a file of the corpus is missing or damaged.
    """
    return _read_corpus(files("dlm_sway.data").joinpath("corpus"))


@cache
def registers() -> tuple[str, ...]:
    """Return the names of the registers, sorted."""
    return tuple(sorted({passage.register for passage in control_passages()}))


@cache
def corpus_hash() -> str:
    """Return the SHA-256 (hex) of the passages in their order, for the provenance of a result.

    It is taken over the content and not the files, so line ends or the spelling of an escape do not change it.
    """
    rows = ([passage.id, passage.register, passage.text] for passage in control_passages())
    canonical = "\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read_corpus(folder: Traversable) -> tuple[ControlPassage, ...]:
    """Return the passages of all `*.jsonl` in `folder`, interleaved by register."""
    paths = jsonl_files(folder, what=_WHAT)
    passages = [_parse(row, where=where) for path in paths for where, row in json_lines(path, what=_WHAT)]
    return interleaved(passages, [passage.register for passage in passages])


def _parse(row: Any, *, where: str) -> ControlPassage:
    if not isinstance(row, dict) or any(not isinstance(row.get(field), str) for field in _FIELDS):
        raise damaged(f"a passage lacks one of the strings {', '.join(_FIELDS)}", where=where)
    return ControlPassage(id=row["id"], register=row["register"], text=row["text"])
