"""A run's journal: what it was asked and how far it came, a line each, beside its result until that is whole.

What was scored is kept by content in the store of results, so a run that goes on needs nothing from here. The journal
is for the person: it says that a run was stopped, how far it was, and whether the suite has changed since. Lines are
only appended, and flushed to the disk; a line that a crash cut short is skipped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Self

from dlm_sway.core.paths import cache_dir
from dlm_sway.core.progress import NamesWhatAsks, Progress

SUFFIX: Final = ".journal"
_EVERY_S: Final = 5.0
_MOST_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run that did not end.

    Attributes:
        when: it began, by the clock of this machine.
        asked: what it was asked.
        phase: what it was doing last.
        done: view-tokens scored.
        total: view-tokens planned by then.
    """

    when: datetime
    asked: Mapping[str, Any]
    phase: str = ""
    done: int = 0
    total: int = 0


def journal_path(suite: Path, result: Path | None) -> Path:
    """Return where the journal of a run stands: beside its result, else in the cache, by the suite's place."""
    if result is not None:
        return result.with_name(f".{result.name}{SUFFIX}")
    name = blake2b(str(suite.absolute()).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return cache_dir() / "journals" / f"{name}{SUFFIX}"


def stopped_run(path: Path) -> Stopped | None:
    """Return the run whose journal stands at `path`, or None."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with path.open("rb") as handle:
            lines = handle.read(_MOST_BYTES).splitlines()
    except OSError:
        return None
    found: dict[str, Any] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found |= entry if isinstance(entry, dict) else {}
    when = _time_of(found.get("began"))
    if when is None or not isinstance(found.get("asked"), dict):
        return None
    done, total = (found.get(name) for name in ("done", "total"))
    known = isinstance(done, int) and isinstance(total, int)
    return Stopped(when, found["asked"], str(found.get("phase", "")), *((done, total) if known else (0, 0)))


def _time_of(seconds: Any) -> datetime | None:
    """Return a time from seconds since 1970, or None where they name none: what a crash left may hold any number."""
    try:
        return datetime.fromtimestamp(seconds).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


class Journal:
    """Writes one, by listening to the run's progress and passing on what it hears.

    Args:
        path: where.
        asked: what the run is asked; JSON values.
        progress: who else listens.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        path: Path,
        asked: Mapping[str, Any],
        progress: Progress,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._asked = asked
        self._progress = progress
        self._clock = clock
        self._last = float("-inf")
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Begin it; where that cannot be, the run goes on without one."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody named this place, so what a link leads to from here is not a run's to write over.
            self._path.unlink(missing_ok=True)
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError:
            self._handle = None
        self._add(journal=1, began=time.time(), asked=dict(self._asked))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it, and take it away when the run came to its end."""
        if self._handle is None:
            return
        os.close(self._handle)
        self._handle = None
        if kind is None:
            self._path.unlink(missing_ok=True)

    def phase(self, label: str) -> None:
        """Note what is being done now."""
        self._add(phase=label)
        self._progress.phase(label)

    def work(self, done: int, total: int) -> None:
        """Note how far it is, unless it was noted just now."""
        now = self._clock()
        if now - self._last >= _EVERY_S:
            self._last = now
            self._add(done=done, total=total)
        self._progress.work(done, total)

    def asking(self, names: Sequence[str]) -> None:
        """Pass it on."""
        if isinstance(self._progress, NamesWhatAsks):
            self._progress.asking(names)

    def _add(self, **entry: object) -> None:
        if self._handle is None:
            return
        try:
            os.write(self._handle, (json.dumps(entry) + "\n").encode())
            os.fsync(self._handle)
        except OSError:  # a full disk costs the journal and not the run
            os.close(self._handle)
            self._handle = None
