"""One run of a suite for all processes of a test session: the first that asks runs it, the others wait and read.

The lock and the result are one sqlite file: its lock ends with the process that holds it, also by `kill -9`, and works
on every system that Python does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dlm_sway.core.result import SuiteResult

_A_DAY_S: Final = 86_400.0
_TABLE: Final = "CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, result TEXT, fault TEXT)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        result: what the suite found, or None where it could not be run.
        fault: why it could not, or None.
    """

    result: SuiteResult | None = None
    fault: str | None = None


def outcome_of(run: Callable[[], SuiteResult]) -> Outcome:
    """Return what came of a run; a fault is kept, since the other items of the session need to know of it."""
    from dlm_sway.core.errors import SwayError

    try:
        return Outcome(result=run())
    except SwayError as fault:
        return Outcome(fault=fault.one_line())
    except Exception as fault:  # noqa: BLE001 (a bug in a probe or a backend fails its tests, and not the session)
        return Outcome(fault=f"{type(fault).__name__}: {fault}")


def shared_outcome(path: Path, key: str, run: Callable[[], SuiteResult]) -> Outcome:
    """Return what came of the run under `key`, which happens in one process alone.

    Args:
        path: the file that all processes of the session know; made when it is not there.
        key: says which suite, and how it is run.
        run: runs it.
    """
    with closing(sqlite3.connect(path, timeout=_A_DAY_S, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        try:
            db.execute(_TABLE)
            kept = db.execute("SELECT result, fault FROM runs WHERE key = ?", (key,)).fetchone()
            if kept is not None:
                return _read(*kept)
            made = outcome_of(run)
            text = None if made.result is None else made.result.model_dump_json()
            db.execute("INSERT INTO runs VALUES (?, ?, ?)", (key, text, made.fault))
        finally:
            db.execute("COMMIT")
        return made


def _read(text: str | None, fault: str | None) -> Outcome:
    from dlm_sway.core.result import SuiteResult

    return Outcome(None if text is None else SuiteResult.model_validate_json(text), fault)
