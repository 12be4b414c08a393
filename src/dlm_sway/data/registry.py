"""Which readers there are. Built-ins register through the same entry-point group as anybody's plugin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from dlm_sway.core.registry import Registry
from dlm_sway.data.reading import Record

GROUP: Final = "dlm_sway.readers"


class Reader(ABC):
    """Reads one format, record by record, in bounded memory.

    A reader yields every record it meets: a `Section`, or a `Skipped` that says why it is of no use. What is malformed
    is a `BadInputError` with file and line.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Ends of file names, in lower case, by which the format is known."""

    @classmethod
    def claims(cls, name: str) -> bool:
        """Return whether a source of this name, which may be a file, a folder or an id, is surely of this format."""
        return Path(name).suffix.lower() in cls.suffixes

    @abstractmethod
    def read(self, name: str) -> Iterator[Record]:
        """Yield the records of a source, in its order.

        Raises:
            BadInputError: it cannot be read, or a record is malformed.
            MissingExtraError: a package that reads the format is not installed.
        """


_REGISTRY: Final[Registry[type[Reader]]] = Registry(GROUP, noun="reader")

register: Final = _REGISTRY.register
"""Return a class decorator that makes a reader known as a kind; see `Registry.register`."""


def readers() -> dict[str, type[Reader]]:
    """Return all registered readers by kind, sorted."""
    return _REGISTRY.all()


def reader_class(kind: str) -> type[Reader]:
    """Return the reader registered as `kind`.

    Raises:
        BadInputError: there is none; the message offers the nearest name.
    """
    return _REGISTRY.get(kind)


def reader_for(name: str) -> Reader:
    """Return the reader of a source, by its name; a file that nobody claims is text, or JSONL by its first line."""
    for cls in readers().values():
        if cls.claims(name):
            return cls()
    return reader_class("text")()
