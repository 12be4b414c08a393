"""Results on disk: bytes under their keys, each with a checksum, the ones used last within a bound.

A damaged entry is removed and was never there; a damaged file starts anew; a full disk costs the cache and not the
run (`sqlite_file` sees to both). Values are raw float32, texts as JSON, or digests of files: nothing here is ever
executed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, Self

from dlm_sway.engine.sqlite_file import SqliteFile, transaction

FILE_NAME: Final = "results-1.sqlite3"  # the number is the layout's: another layout is another file
MAX_BYTES: Final = 2**30
_HOUR_NS: Final = 3600 * 10**9
_COLUMNS: Final = "key BLOB PRIMARY KEY, value BLOB NOT NULL, length INTEGER NOT NULL, checksum BLOB NOT NULL"
_TABLES: Final = (
    f"CREATE TABLE IF NOT EXISTS results ({_COLUMNS}, used INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_use ON results (used)",
)


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        entries: number of results.
        value_bytes: their values, without keys and checksums.
        file_bytes: what the files take on disk.
        last_used: when an entry was last used, in seconds since 1970, to the hour; None without entries.
    """

    entries: int
    value_bytes: int
    file_bytes: int
    last_used: float | None


class DiskStore:
    """Keeps the results used last, in a file of about `max_bytes` at most.

    Safe with several processes. Used from one thread.

    Args:
        folder: made where it is missing.
        max_bytes: of the file.
        timeout_s: how long to wait for another process that is writing.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, timeout_s: float = 10.0) -> None:
        self.path = folder / FILE_NAME
        self.max_bytes = max_bytes
        self._file = SqliteFile(self.path, _TABLES, timeout_s=timeout_s)
        self._touched: set[bytes] = set()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return what is known of `keys`."""
        nothing: dict[bytes, bytes] = {}
        return self._file.attempt(partial(self._read, tuple(keys)), nothing)

    def put_many(self, entries: Mapping[bytes, bytes]) -> bool:
        """Keep `entries` in one transaction; return whether they are on disk now."""
        return self._file.attempt(partial(self._write, entries), otherwise=False)

    def info(self) -> StoreInfo:
        """Return what the store holds; reads all of it, and makes no file where there is none."""
        nothing = StoreInfo(0, 0, 0, None)
        return self._file.attempt(self._info, nothing) if self.path.exists() else nothing

    def clear(self) -> bool:
        """Forget everything and give the space back; return whether that went well."""
        done = not self.path.exists() or self._file.attempt(_emptied, otherwise=False)
        self._file.aside.unlink(missing_ok=True)
        return done

    def close(self) -> None:
        """Note which entries were used, and close the file."""
        if self._touched:
            self._file.attempt(partial(self._write, {}), otherwise=False)
        self._file.close()

    def _read(self, keys: tuple[bytes, ...], db: sqlite3.Connection) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        damaged: list[tuple[bytes]] = []
        old = time.time_ns() - _HOUR_NS
        with transaction(db, "DEFERRED"):
            for key in keys:
                row = db.execute("SELECT value, length, checksum, used FROM results WHERE key = ?", (key,)).fetchone()
                if row is None:
                    continue
                value, length, checksum, used = row
                if not isinstance(value, bytes) or len(value) != length or _checksum(key, value) != checksum:
                    damaged.append((key,))
                    continue
                found[key] = value
                if not isinstance(used, int) or used < old:  # noting every use would make every reader a writer
                    self._touched.add(key)
        if damaged:
            with transaction(db, "IMMEDIATE"):
                db.executemany("DELETE FROM results WHERE key = ?", damaged)
        return found

    def _write(self, entries: Mapping[bytes, bytes], db: sqlite3.Connection) -> bool:
        now = time.time_ns()
        rows = [(key, value, len(value), _checksum(key, value), now) for key, value in entries.items()]
        with transaction(db, "IMMEDIATE"):
            db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", rows)
            db.executemany("UPDATE results SET used = ? WHERE key = ?", [(now, key) for key in self._touched])
            self._evict(db)
        self._touched.clear()
        return True

    def _evict(self, db: sqlite3.Connection) -> None:
        if _bytes_used(db) <= self.max_bytes:
            return
        while _bytes_used(db) > 0.9 * self.max_bytes:  # some below, so that the next writes need not do it again
            oldest = "DELETE FROM results WHERE key IN (SELECT key FROM results ORDER BY used LIMIT 256)"
            if db.execute(oldest).rowcount < 1:
                break

    def _info(self, db: sqlite3.Connection) -> StoreInfo:
        entries, size, used = db.execute("SELECT count(*), coalesce(sum(length), 0), max(used) FROM results").fetchone()
        return StoreInfo(entries, size, self._file.size(), None if used is None else used / 1e9)


def _emptied(db: sqlite3.Connection) -> bool:
    for statement in ("DELETE FROM results", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
        db.execute(statement)
    return True


def _bytes_used(db: sqlite3.Connection) -> int:
    """Return the bytes of pages that hold something; freed ones are used again before the file grows."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def _checksum(key: bytes, value: bytes) -> bytes:
    # The key is part of it, so that a value under another's key is damage too.
    return blake2b(key + value, digest_size=8).digest()
