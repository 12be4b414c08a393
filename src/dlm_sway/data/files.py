"""Users' files line by line: what is no readable UTF-8 text is named with its line and offset."""

from __future__ import annotations

import codecs
import difflib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from dlm_sway.core.errors import BadInputError

MAX_LINE: Final = 64 * 2**20  # bytes; a file of one endless line must not fill the memory
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What files begin with that are read once they are unpacked or named as they are. None of it is UTF-8 of a text.
_PACKED: Final = {
    b"\x1f\x8b": ("compressed (gzip)", "unpack it: `gunzip -k {}`"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstandard)", "unpack it: `unzstd {}`"),
    b"\xfd7zXZ\0": ("compressed (xz)", "unpack it: `unxz -k {}`"),
    b"PK\x03\x04": ("a zip archive, as spreadsheets are too", "unpack it, or save the table as JSONL or Parquet"),
    b"PAR1": ("Parquet", "give it the ending .parquet"),
}

Line: TypeAlias = tuple[int, str]
"""A line: its 1-based number, and its text without the line's end."""


def lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file; a byte order mark is accepted, and one line at a time is in memory.

    Raises:
        BadInputError: no such file, no regular file, unreadable, not UTF-8 (the remedy names the encoding that it looks
            like), a NUL byte, or a line of more than 64 MB.
    """
    require_file(path)
    offset = 0
    try:
        with path.open("rb") as handle:
            number = 0
            while raw := handle.readline(MAX_LINE + 1):
                number += 1
                if len(raw) > MAX_LINE:
                    what = f"is longer than {MAX_LINE // 2**20} MB"
                    raise BadInputError(what, where=f"{path}:{number}", remedy="put one record on each line")
                yield number, _decode(raw, path, number, offset)
                offset += len(raw)
    except OSError as exc:
        raise unreadable(path, exc) from exc


def file_hash(path: Path) -> str:
    """Return the SHA-256 of the file's bytes as 64 hexadecimal digits.

    Raises:
        BadInputError: the file cannot be read.
    """
    require_file(path)
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as exc:
        raise unreadable(path, exc) from exc


def require_file(path: Path) -> None:
    """Return if `path` is a regular file.

    Raises:
        BadInputError: it is not; the remedy offers the nearest name beside it.
    """
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


def unreadable(path: Path, exc: OSError) -> BadInputError:
    """Return the error for a file that the system does not let us read."""
    return BadInputError(f"cannot be read: {exc.strerror or exc}", where=path, remedy="check the file's permissions")


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"did you mean {path.with_name(near[0])}?" if near else "check the path"


def _decode(raw: bytes, path: Path, number: int, offset: int) -> str:
    """Return one line as text; `offset` is where it starts in the file, for the message."""
    body = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
    if number == 1 and (known := next((way for magic, way in _PACKED.items() if raw.startswith(magic)), None)):
        what, remedy = known
        raise BadInputError(f"is {what}, and no text", where=path, remedy=remedy.format(path.name))
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
