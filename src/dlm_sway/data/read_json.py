"""JSON: an array of records, an object that holds one, or JSONL by another name; element by element."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import place
from dlm_sway.data.files import Line, lines
from dlm_sway.data.jsonl import is_object
from dlm_sway.data.reading import Record
from dlm_sway.data.registry import Reader, reader_class, register
from dlm_sway.data.shapes import section_of, shape_of
from dlm_sway.data.values import ONE_OF_THEM, DoubledKeyError, kind_of, without_doubles

_MOST: Final = 64 * 2**20  # characters of one element, or of a file that is a single object
_BLANK: Final = " \t\r\n"


@register("json")
class JsonReader(Reader):
    """Reads `[{...}, ...]`, `{"data": [{...}, ...]}`, a single record over several lines, or an object a line."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def read(self, name: str) -> Iterator[Record]:
        """Yield a record an element; of an array one element at a time is in memory."""
        path = Path(name)
        first = next((text for _, text in lines(path) if text.strip()), "")
        if is_object(first) and shape_of(json.loads(first)):
            yield from reader_class("jsonl")().read(name)
        elif first.lstrip().startswith("["):
            for line, nth, value in elements(path):
                yield _record(value, name, line, nth)
        else:
            yield from _whole(path, name)


def elements(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Yield the elements of an array, each behind its line and its place as `Section` has them.

    Raises:
        BadInputError: no JSON from some line on, or an element of more than 64 million characters.
    """
    text = _Text(path, lines(path))
    yield from _array(text)
    if text.peek():
        raise BadInputError("is no JSON (something stands behind the array)", where=text.where, remedy="take it out")


class _Text:
    """A file as characters that are decoded as JSON from the left."""

    def __init__(self, path: Path, numbered: Iterable[Line]) -> None:
        self._path = path
        self._lines = iter(numbered)
        self._decoder = json.JSONDecoder(object_pairs_hook=without_doubles)
        self._buffer = ""
        self._at = 0
        self._last = 1
        self.line = 1

    @property
    def where(self) -> str:
        return f"{self._path}:{min(self.line, self._last)}"

    def peek(self) -> str:
        """Return the next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _BLANK:
                self._step(self._at + 1)
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def skip(self, char: str) -> None:
        """Pass over one character that has to be there."""
        found = self.peek()
        if found != char:
            what = f"is no JSON (`{char}` expected, {f'`{found}`' if found else 'the end of the file'} found)"
            raise BadInputError(what, where=self.where, remedy="put a comma between records and `]` behind the last")
        self._step(self._at + 1)

    def value(self) -> Any:
        """Return the next value."""
        self.peek()
        wanted = 1
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except RecursionError as exc:
                raise BadInputError("is JSON nested too deeply", where=self.where) from exc
            except DoubledKeyError as exc:
                raise BadInputError(str(exc), where=self.where, remedy=ONE_OF_THEM) from exc
            except ValueError as exc:
                # The element may only be cut; twice as much at each try keeps the work linear.
                if len(self._buffer) - self._at > _MOST:
                    what = f"an element is longer than {_MOST // 2**20} MB, or is no JSON ({exc})"
                    raise BadInputError(what, where=self.where, remedy="write one record on each line") from exc
                if not self._more(wanted):
                    raise BadInputError(f"is no JSON ({_reason(exc)})", where=self._fault(exc)) from exc
                wanted *= 2
                continue
            self._step(end)
            return value

    def _more(self, n: int = 1) -> bool:
        added = []
        for number, text in islice(self._lines, n):
            added.append(text + "\n")
            self._last = number
        self._buffer = self._buffer[self._at :] + "".join(added)
        self._at = 0
        return bool(added)

    def _step(self, to: int) -> None:
        self.line += self._buffer.count("\n", self._at, to)
        self._at = to

    def _fault(self, exc: ValueError) -> str:
        place = exc.pos if isinstance(exc, json.JSONDecodeError) else self._at
        return f"{self._path}:{min(self._last, self.line + self._buffer.count(chr(10), self._at, place))}"


def _reason(exc: ValueError) -> str:
    return exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)


def _array(text: _Text) -> Iterator[tuple[int, int, Any]]:
    text.skip("[")
    if text.peek() == "]":
        text.skip("]")
        return
    nth = before = 0
    while True:
        text.peek()
        line = text.line
        yield line, nth if line == before else 0, text.value()
        nth, before = nth + 1, line
        if text.peek() != ",":
            text.skip("]")
            return
        text.skip(",")


def _record(value: Any, name: str, line: int, nth: int = 0) -> Record:
    if not isinstance(value, dict):
        what = f"an element of the array is {kind_of(value)} and not an object"
        remedy = 'write each as {"text": ...} or another known shape'
        raise BadInputError(what, where=place(name, line, nth), remedy=remedy)
    return section_of(value, source=name, line=line, nth=nth)


def _whole(path: Path, name: str) -> Iterator[Record]:
    """Yield the records of a file that is one value, which is read as a whole."""
    size = path.stat().st_size
    if size > _MOST:
        what = f"is one JSON object of {size // 2**20} MB, which cannot be read piece by piece"
        raise BadInputError(what, where=name, remedy="write one record on each line: `jq -c '.KEY[]' FILE`")
    text = "\n".join(line for _, line in lines(path)).removeprefix(codecs.BOM_UTF8.decode())
    if not text.strip():
        return
    try:
        value = json.loads(text, object_pairs_hook=without_doubles)
    except RecursionError as exc:
        raise BadInputError("is JSON nested too deeply", where=name) from exc
    except DoubledKeyError as exc:
        raise BadInputError(str(exc), where=name, remedy=ONE_OF_THEM) from exc
    except ValueError as exc:
        line = getattr(exc, "lineno", 1)
        raise BadInputError(f"is no JSON ({_reason(exc)})", where=f"{name}:{line}", remedy=_ONE_A_LINE) from exc
    key = _key(value, name)
    if key is None:
        yield _record(value, name, 1)
        return
    # It is known to be JSON now; walking it once more tells on which lines its records stand.
    for line, nth, row in _under(key, _Text(Path(name), enumerate(text.split("\n"), start=1))):
        yield _record(row, name, line, nth)


_ONE_A_LINE: Final = "give an array of objects, or one object on each line"


def _key(value: Any, name: str) -> str | None:
    """Return the key of the one array of objects in a value; None where it is a record itself."""
    if not isinstance(value, dict):
        raise BadInputError(f"is JSON, but {kind_of(value)}", where=f"{name}:1", remedy=_ONE_A_LINE)
    if shape_of(value):
        return None
    lists = [k for k, v in value.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
    if len(lists) > 1:
        what = f"holds several arrays of records: {', '.join(f'`{key[:40]}`' for key in lists[:5])}"
        raise BadInputError(what, where=f"{name}:1", remedy="`jq -c '.KEY[]' FILE` takes one out")
    return lists[0] if lists else None


def _under(key: str, text: _Text) -> Iterator[tuple[int, int, Any]]:
    """Yield the elements of the array that stands under a key of an object, as `elements` does."""
    text.skip("{")
    while text.value() != key:
        text.skip(":")
        text.value()
        text.skip(",")
    text.skip(":")
    yield from _array(text)
