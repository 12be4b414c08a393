"""`sway report`: a stored result in another form."""

from __future__ import annotations

from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dlm_sway.cli.options import option
from dlm_sway.cli.outputs import first_file, places
from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from dlm_sway.report.document import Result


_PAGE: Final = 80  # a file reads the same from whatever terminal it was written


class Format(StrEnum):
    """What a report can be."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"
    JUNIT = "junit"


def report(
    file: Annotated[
        Path, typer.Argument(metavar="RESULT.json", help="What `sway check`, `run` or `chain --json` wrote.")
    ],
    *,
    form: Annotated[
        Format | None,
        option("--format", help="What to write; by default what PATH ends in, else the terminal's report."),
    ] = None,
    out: Annotated[
        Path | None,
        option("--output", "-o", metavar="PATH", help="Where to; - or nothing: stdout."),
    ] = None,
) -> None:
    """Show a stored result again: on the terminal, or as JSON, Markdown, HTML or JUnit XML.

    Results of older versions can be read. It ends with 0 whatever the
    verdict was: what passes and what fails is said by `sway check`.
    """
    from dlm_sway.report.read import load_result

    result = load_result(file.expanduser())
    out = first_file(places(reads=[file], output=out))
    chosen = form or _by_ending(out)
    if chosen is Format.TERMINAL:
        _show(result, out)
        return
    from dlm_sway.cli.console import write_stdout
    from dlm_sway.report.write import FORMATS, rendered, write_report

    kind = next(name for name in FORMATS if name == chosen.value)
    if out is None:
        write_stdout(rendered(result, kind))
    else:
        write_report(result, out, kind)


def _by_ending(out: Path | None) -> Format:
    if out is None:
        return Format.TERMINAL
    from dlm_sway.report.write import format_of

    if (found := format_of(out)) is not None:
        return Format(found)
    if out.suffix in ("", ".txt"):
        return Format.TERMINAL
    raise BadInputError(f"no format is known by {out.suffix}", where=out, remedy="name one with --format")


def _show(result: Result, out: Path | None) -> None:
    from dlm_sway.cli.console import plain_console, stdout_console
    from dlm_sway.core.files import write_atomic
    from dlm_sway.report.suite_terminal import print_result

    if out is None:
        print_result(result, stdout_console())
        return
    page = StringIO()
    print_result(result, plain_console(page, width=_PAGE))
    write_atomic(out, page.getvalue())
