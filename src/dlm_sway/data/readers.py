"""Users' data: text by paragraph or line, and JSONL.

A file is JSONL when it is named `.jsonl` or `.json`, or when its first line that is not blank is a JSON object. Every
line is one object with the key `text`, or the keys `prompt` and `completion`, and optionally `cluster`: lines of one
cluster (a document, a template, a set of paraphrases) vary together and are counted as one in every interval.

Any other file is text. Where a blank line stands between paragraphs, each paragraph is an item; otherwise each line.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.jsonl import is_object, parse_line

_JSONL_SUFFIXES: Final = (".jsonl", ".json", ".ndjson")
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Line: TypeAlias = tuple[int, str]
"""A line that is not blank: its 1-based number, and its text without the line's end."""


@dataclass(frozen=True, slots=True)
class DataItem:
    """One thing to score.

    Attributes:
        prompt: what the completion is conditioned on; empty for plain text.
        completion: the text that is scored; never blank.
        source: the file as the user named it.
        line: 1-based line where the item starts.
        cluster: items of one cluster are kept together in every interval; each item is its own by default.
    """

    prompt: str
    completion: str
    source: str
    line: int
    cluster: str


def read_items(path: Path) -> tuple[DataItem, ...]:
    """Return the items of a text or JSONL file, in the file's order; at least one.

    The file is read line by line. A byte order mark is accepted.

    Raises:
        BadInputError: no such file, a directory, not UTF-8 (the remedy names the encoding that it looks like), nothing
            but blanks, or a line of JSONL that is not of a known shape. `where` is `file` or `file:line`.
    """
    lines = list(_lines(path))
    filled = [line for line in lines if line[1].strip()]
    if not filled:
        raise BadInputError("holds no text", where=path, remedy="put a paragraph or a JSON object on each line")
    if path.suffix.lower() in _JSONL_SUFFIXES or is_object(filled[0][1]):
        return tuple(_from_json(path, line) for line in filled)
    return tuple(_from_text(path, block) for block in _blocks(lines))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of the file's bytes as 64 hexadecimal digits.

    Raises:
        BadInputError: the file cannot be read.
    """
    _require_file(path)
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _lines(path: Path) -> Iterator[Line]:
    _require_file(path)
    offset = 0
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                yield number, _decode(raw, path, number, offset)
                offset += len(raw)
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _require_file(path: Path) -> None:
    try:
        found, regular, folder = path.exists(), path.is_file(), path.is_dir()
    except (OSError, ValueError) as exc:
        raise BadInputError(f"not a usable path: {exc}", where=str(path), remedy="name a file that exists") from exc
    if folder:
        raise BadInputError("is a directory, not a file", where=path, remedy="name one text or JSONL file in it")
    if not found:
        raise BadInputError("no such file", where=path, remedy=_neighbour(path))
    if not regular:
        what = "is no regular file, and sway reads its data more than once"
        raise BadInputError(what, where=path, remedy="save it to a file first")


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"did you mean {path.with_name(near[0])}?" if near else "check the path"


def _unreadable(path: Path, exc: OSError) -> BadInputError:
    return BadInputError(f"cannot be read: {exc.strerror}", where=path, remedy="check the file's permissions")


def _decode(raw: bytes, path: Path, number: int, offset: int) -> str:
    """Return one line as text; `offset` is where it starts in the file, for the message."""
    body = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
    start = offset + len(raw) - len(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        what = f"is not UTF-8: byte 0x{body[exc.start]:02x} at offset {start + exc.start} of the file"
        raise BadInputError(what, where=f"{path}:{number}", remedy=_convert(raw)) from exc
    if "\0" in text:
        what = f"holds a NUL byte at offset {start + body.index(0)} of the file, so it is no text"
        raise BadInputError(what, where=f"{path}:{number}", remedy="name a text file or convert it to UTF-8")
    return text.rstrip("\r\n")


def _convert(raw: bytes) -> str:
    encoding = "UTF-16" if raw.startswith(_UTF16) else "LATIN1"
    return f"save it as UTF-8, for instance with `iconv -f {encoding} -t UTF-8`"


def _from_json(path: Path, line: Line) -> DataItem:
    number, text = line
    record = parse_line(text, where=f"{path}:{number}")
    cluster = record.cluster if record.cluster is not None else f"{path}:{number}"
    return DataItem(record.prompt, record.completion, str(path), number, cluster)


def _blocks(lines: list[Line]) -> list[list[Line]]:
    """Return the paragraphs where there are several, else each line by itself."""
    paragraphs: list[list[Line]] = [[]]
    for line in lines:
        if line[1].strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    found = [block for block in paragraphs if block]
    return found if len(found) > 1 else [[line] for line in found[0]]


def _from_text(path: Path, block: list[Line]) -> DataItem:
    number = block[0][0]
    return DataItem("", "\n".join(text for _, text in block), str(path), number, f"{path}:{number}")
