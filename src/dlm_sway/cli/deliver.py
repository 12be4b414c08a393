"""Handing a result over: the JSON file, then the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlm_sway.core.errors import SwayError
from dlm_sway.core.files import write_atomic


def deliver(path: Path | None, document: Callable[[], str], show: Callable[[], None]) -> None:
    """Write the document to `path`, where one is asked for, and show the report.

    The file comes first, so a reader that leaves in the middle of the report does not cost it. The report is shown
    even where the file cannot be written: the work of hours is in it.

    Raises:
        CannotRunError: the file could not be written; raised after the report.
    """
    fault: SwayError | None = None
    if path is not None:
        try:
            write_atomic(path, document())
        except SwayError as exc:
            fault = exc
    show()
    if fault is not None:
        raise fault
