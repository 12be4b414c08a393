"""`sway inspect`: is the adapter file sound, and does every tensor land on a module of its base?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dlm_sway.cli.options import JsonPath
from dlm_sway.cli.outputs import places
from dlm_sway.core.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH: Final = 200
_EXIT: Final = {"pass": ExitCode.PASS, "warn": ExitCode.PASS, "fail": ExitCode.FAIL}


def inspect(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Directory of the adapter, as PEFT saves it.")],
    *,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE", envvar="SWAY_BASE", help="Directory or Hub id; default: as the adapter records it."
        ),
    ] = None,
    json_path: JsonPath = None,
) -> None:
    """Check an adapter's files without loading a model: names, shapes, scales, norms, NaN, and the base it fits.

    Needs no torch, opens no pickle, asks no network. Without its base an adapter that shows no fault is inconclusive.
    """
    from dlm_sway.adapters.checks import inspect_adapter
    from dlm_sway.cli.deliver import deliver
    from dlm_sway.report.inspect_terminal import print_inspection
    from dlm_sway.report.json import dumps

    json_path = places(reads=[base], adapters=[adapter], json=json_path).get("json")
    inspection = inspect_adapter(adapter.expanduser(), base)
    deliver(
        json_path, lambda: dumps(inspection.model_dump()), lambda console: print_inspection(inspection, _wide(console))
    )
    raise typer.Exit(int(_EXIT.get(inspection.verdict, ExitCode.INCONCLUSIVE)))


def _wide(console: Console) -> Console:
    if not console.is_terminal:
        # Nothing folds a table in a file or a pipe; a reader there wants whole names, one line each.
        console.width = max(console.width, _PIPE_WIDTH)
    return console
