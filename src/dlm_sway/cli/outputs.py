"""The files that a run leaves: the formats that were asked for, each where it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dlm_sway.cli.options import ready_to_write
from dlm_sway.core.errors import CannotRunError, SwayError

if TYPE_CHECKING:
    from dlm_sway.core.result import SuiteResult

_WRITER: Final = "dlm_sway.report.write"


def places(**paths: Path | None) -> dict[str, Path]:
    """Return the places that were named, by format, after a check that each can be written.

    Raises:
        BadInputError: one cannot; found out now rather than after the work.
    """
    return {name: place for name, path in paths.items() if (place := ready_to_write(path)) is not None}


def write_all(result: SuiteResult, wanted: Mapping[str, Path]) -> SwayError | None:
    """Write every report that was asked for, and return the first fault.

    One that cannot be written keeps none of the others from being written: the work of hours is in them.
    """
    faults: list[SwayError] = []
    for name, path in wanted.items():
        try:
            _write(result, path, name)
        except SwayError as fault:
            faults.append(fault)
    return faults[0] if faults else None


def _write(result: SuiteResult, path: Path, name: str) -> None:
    try:
        writer = import_module(_WRITER)
    except ModuleNotFoundError as error:
        if error.name != _WRITER:
            raise
        if name != "json":
            raise CannotRunError(f"this version writes no {name}", where=path, remedy="ask for --json") from None
        from dlm_sway.core.files import write_atomic
        from dlm_sway.report.json import dumps

        write_atomic(path, dumps(result.model_dump(mode="json")))
    else:
        writer.write_report(result, path, name)
