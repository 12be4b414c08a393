"""Handing a result over: its files, then the report.

Where a document goes to standard output it is alone there, so that a program can read it; the report goes to stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dlm_sway.cli.outputs import STDOUT
from dlm_sway.core.errors import SwayError
from dlm_sway.core.files import write_atomic

if TYPE_CHECKING:
    from rich.console import Console

    from dlm_sway.report.document import Result
    from dlm_sway.suite.gate import Gate

Show: TypeAlias = "Callable[[Console], None]"


def deliver(path: Path | None, document: Callable[[], str], show: Show) -> None:
    """Write the document to `path`, where one is asked for, and show the report.

    Raises:
        CannotRunError: the file could not be written; raised after the report.
    """
    deliver_all([(path, document)], show)


def deliver_all(files: Iterable[tuple[Path | None, Callable[[], str]]], show: Show) -> None:
    """Write each document that has a path, and show the report.

    The files come first, so a reader that leaves in the middle of the report does not cost them. The report is shown
    even where a file cannot be written, and so are the other files: the work of hours is in them.

    Raises:
        CannotRunError: a file could not be written; the first is raised, after the report.
    """
    from dlm_sway.cli.console import stderr_console, stdout_console, write_stdout

    faults: list[SwayError] = []
    wanted = [(path, document) for path, document in files if path is not None]
    for path, document in wanted:
        try:
            if path == STDOUT:
                write_stdout(document())
            else:
                write_atomic(path, document())
        except SwayError as exc:
            faults.append(exc)
    show(stderr_console() if any(path == STDOUT for path, _ in wanted) else stdout_console())
    if faults:
        raise faults[0]


def deliver_reports(result: Result, files: Mapping[str, Path | None], show: Show, *, gate: Gate | None = None) -> None:
    """Write the result, and what a gate found of it, in each format that has a path, and show the report.

    Raises:
        CannotRunError: a file could not be written; the first is raised, after the report.
    """
    from dlm_sway.report.write import FORMATS, rendered

    deliver_all([(files.get(name), partial(rendered, result, name, gate=gate)) for name in FORMATS], show)
