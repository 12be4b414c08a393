"""The control corpus: plain text on which a fine-tune must do no harm."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import zip_longest

from dlm_sway.core.errors import CannotRunError

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
    paths = [path for path in folder.iterdir() if path.name.endswith(".jsonl")] if folder.is_dir() else []
    if not paths:
        raise _damaged("no control corpus found", where=str(folder))
    by_register: dict[str, list[ControlPassage]] = {}
    for path in sorted(paths, key=lambda path: path.name):
        for passage in _read_file(path):
            by_register.setdefault(passage.register, []).append(passage)
    rounds = zip_longest(*(by_register[name] for name in sorted(by_register)))
    return tuple(passage for row in rounds for passage in row if passage is not None)


def _read_file(path: Traversable) -> list[ControlPassage]:
    """Return the passages of one file, in the order of its lines."""
    # Not str.splitlines: it would also cut at the line separators that a JSON string may hold unescaped.
    lines = path.read_bytes().split(b"\n")
    return [_parse(line, where=f"{path.name}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(line: bytes, *, where: str) -> ControlPassage:
    """Return the passage on one line of JSON."""
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise _damaged("a line of the control corpus is no JSON", where=where) from error
    if not isinstance(row, dict) or any(not isinstance(row.get(field), str) for field in _FIELDS):
        raise _damaged(f"a passage lacks one of the strings {', '.join(_FIELDS)}", where=where)
    return ControlPassage(id=row["id"], register=row["register"], text=row["text"])


def _damaged(what: str, *, where: str) -> CannotRunError:
    """Return the error for an installation whose data files are not what was shipped."""
    return CannotRunError(what, where=where, remedy="install dlm-sway again")
