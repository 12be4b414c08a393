"""Handing a result over: its files, then the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlm_sway.core.errors import SwayError
from dlm_sway.core.files import write_atomic

if TYPE_CHECKING:
    from dlm_sway.report.document import Result
    from dlm_sway.suite.gate import Gate


def deliver(path: Path | None, document: Callable[[], str], show: Callable[[], None]) -> None:
    """Write the document to `path`, where one is asked for, and show the report.

    Raises:
        CannotRunError: the file could not be written; raised after the report.
    """
    deliver_all([(path, document)], show)


def deliver_all(files: Iterable[tuple[Path | None, Callable[[], str]]], show: Callable[[], None]) -> None:
    """Write each document that has a path, and show the report.

    The files come first, so a reader that leaves in the middle of the report does not cost them. The report is shown
    even where a file cannot be written, and so are the other files: the work of hours is in them.

    Raises:
        CannotRunError: a file could not be written; the first is raised, after the report.
    """
    faults: list[SwayError] = []
    for path, document in files:
        if path is not None:
            try:
                write_atomic(path, document())
            except SwayError as exc:
                faults.append(exc)
    show()
    if faults:
        raise faults[0]


def deliver_reports(
    result: Result, files: Mapping[str, Path | None], show: Callable[[], None], *, gate: Gate | None = None
) -> None:
    """Write the result, and what a gate found of it, in each format that has a path, and show the report.

    Raises:
        CannotRunError: a file could not be written; the first is raised, after the report.
    """
    from dlm_sway.report.write import FORMATS, rendered

    deliver_all([(files.get(name), partial(rendered, result, name, gate=gate)) for name in FORMATS], show)
