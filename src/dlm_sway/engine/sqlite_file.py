"""One sqlite file whose loss costs time and nothing else: it opens lazily, heals by starting anew, and never raises.

Whole transactions survive kill -9 and are seen by other processes at once; a power cut may lose the last of them,
never half of one.

Trade-off taken: the write-ahead log needs a file system of this machine. Where two hosts share the file over a
network it may be damaged, which is found and costs what was in it.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TypeVar

_DAMAGED: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PAUSE_S: Final = 0.02

_log: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


class SqliteFile:
    """A database that work is attempted on; what cannot be done gives its default, and says why once.

    Args:
        path: the file; its folder is made where it is missing.
        tables: statements that make the tables, harmless where they exist.
        timeout_s: how long to wait for another process that is writing.
    """

    def __init__(self, path: Path, tables: Sequence[str], *, timeout_s: float) -> None:
        self.path = path
        self._tables = tables
        self._timeout_s = timeout_s
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._off = False

    def attempt(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Return what `work` gives; a damaged file is replaced once, any other fault turns this file off for good."""
        for last in (False, True):
            if self._off:
                break
            try:
                self._db = self._db or self._connect()
                return work(self._db)
            except sqlite3.ProgrammingError:
                raise  # a fault of ours, such as use from another thread
            except (sqlite3.Error, OSError) as fault:
                self._recover(fault, give_up=last)
        return otherwise

    def size(self) -> int:
        """Return what the file takes on disk with its log, in bytes."""
        return sum(p.stat().st_size for p in (self.path, *self._side_files()) if p.exists())

    def close(self) -> None:
        """Close the file; the next attempt opens it again."""
        if self._db is not None:
            self._db.close()
        self._db = None

    @property
    def aside(self) -> Path:
        """Where a damaged file is put."""
        return self.path.with_name(f"{self.path.name}.damaged")

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=self._timeout_s, isolation_level=None)
        try:
            for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", *self._tables):
                _patiently(db, statement, self._timeout_s)
            self._inode = self.path.stat().st_ino
        except BaseException:
            db.close()
            raise
        return db

    def _recover(self, fault: Exception, *, give_up: bool) -> None:
        self.close()
        if not give_up and _code(fault) in _DAMAGED:
            try:
                self._move_aside(fault)
            except OSError as refused:
                fault = refused
            else:
                return
        self._off = True
        _log.warning("the cache of results is off for the rest of this run: %s: %s", self.path, fault)

    def _move_aside(self, fault: Exception) -> None:
        # Another process that met the same damage may have put a new file there, which must stay.
        if self._inode and self.path.stat().st_ino != self._inode:
            return
        for side in self._side_files():  # left behind, the log would be replayed into the new file
            side.unlink(missing_ok=True)
        self.path.replace(self.aside)
        _log.warning("the cache of results was damaged (%s) and starts anew; the old file is %s", fault, self.aside)

    def _side_files(self) -> tuple[Path, ...]:
        return tuple(self.path.with_name(f"{self.path.name}{suffix}") for suffix in ("-wal", "-shm"))


@contextmanager
def transaction(db: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """Do all of the block or none of it."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:  # Ctrl-C included
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _patiently(db: sqlite3.Connection, statement: str, timeout_s: float) -> None:
    """Execute again while another process sets the file up; sqlite's own waiting does not cover that moment."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            db.execute(statement)
        except sqlite3.OperationalError as fault:
            if _code(fault) not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _code(fault: Exception) -> int:
    """Return sqlite's primary result code, or -1 for a fault that is not sqlite's."""
    code = getattr(fault, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF
