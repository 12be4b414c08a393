"""Bytes kept by key: the protocol, and a store in memory with a bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

_OVERHEAD: Final = 250  # what Python spends on an entry beside its bytes: two objects and a slot of the table


class ResultStore(Protocol):
    """Keeps bytes under keys made from content, so an entry is never wrong, only absent.

    A store may forget anything at any time; whoever needs an entry to stay keeps it as well.
    """

    def get_many(self, keys: Iterable[bytes]) -> Mapping[bytes, bytes]:
        """Return what is known of `keys`."""
        ...

    def put_many(self, entries: Mapping[bytes, bytes]) -> bool:
        """Keep `entries`; return whether they are kept now."""
        ...


class MemoryStore:
    """Keeps the entries used last, in at most `max_bytes` of memory."""

    def __init__(self, *, max_bytes: int) -> None:
        self._entries: dict[bytes, bytes] = {}  # the order is that of use, oldest first
        self._room = max_bytes
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return what is known of `keys`, and count them as used now."""
        found = {key: self._entries.pop(key) for key in keys if key in self._entries}
        self._entries |= found
        return found

    def put_many(self, entries: Mapping[bytes, bytes]) -> bool:
        """Keep `entries` and forget the ones not used for longest; one larger than the bound is not taken."""
        fitting = {key: value for key, value in entries.items() if _size(key, value) <= self._max_bytes}
        for key, value in fitting.items():
            self._drop(key)
            self._entries[key] = value
            self._room -= _size(key, value)
        while self._room < 0:
            self._drop(next(iter(self._entries)))
        return len(fitting) == len(entries)

    def _drop(self, key: bytes) -> None:
        if (value := self._entries.pop(key, None)) is not None:
            self._room += _size(key, value)


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD
