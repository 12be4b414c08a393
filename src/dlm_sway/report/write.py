"""Every format by its name, and a report in a file that is either whole or not there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.files import write_atomic
from dlm_sway.report.document import Result
from dlm_sway.suite.gate import Gate

ReportFormat: TypeAlias = Literal["json", "markdown", "html", "junit"]
FORMATS: Final[tuple[ReportFormat, ...]] = get_args(ReportFormat)

# Imported when asked for: one format does not wait for the libraries of another.
_RENDERERS: Final[dict[ReportFormat, tuple[str, str]]] = {
    "json": ("json", "to_json"),
    "markdown": ("markdown", "to_markdown"),
    "html": ("html.page", "to_html"),
    "junit": ("junit", "to_junit"),
}
_ENDINGS: Final[dict[str, ReportFormat]] = {
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xml": "junit",
}


def write_report(result: Result, path: Path, format: ReportFormat) -> None:  # noqa: A002 (the word users know)
    """Leave `path` holding the report, or untouched.

    Raises:
        BadInputError: there is no such format, or the path cannot be a file.
        CannotRunError: the system refused the write.
    """
    write_atomic(path, rendered(result, format))


def rendered(result: Result, format: ReportFormat, *, gate: Gate | None = None) -> str:  # noqa: A002 (as above)
    """Return the report as text, with a newline at its end.

    Args:
        result: of a check, a suite or a walk along the chain.
        format: by its name.
        gate: what a gate found of the result, which all formats say but JSON: that holds what a gate judges anew.

    Raises:
        BadInputError: there is no such format.
    """
    if format not in _RENDERERS:
        raise BadInputError(f"there is no format {format!r}", remedy=f"choose one of {', '.join(FORMATS)}")
    module, name = _RENDERERS[format]
    judged = {} if gate is None or format == "json" else {"gate": gate}
    text: str = getattr(import_module(f"dlm_sway.report.{module}"), name)(result, **judged)
    return text


def format_of(path: Path) -> ReportFormat | None:
    """Return the format that a file's ending asks for, or None."""
    return _ENDINGS.get(path.suffix.lower())
