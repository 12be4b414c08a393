"""The command `sway`: its sub-commands, and how each of them ends.

Nothing heavy is imported here: `sway --help` answers before torch or numpy would have loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dlm_sway.cli import (
    autogen,
    cache,
    chain,
    check,
    compare,
    console,
    convert,
    demo,
    diff,
    doctor,
    faults,
    gate,
    init,
    inspect,
    list_probes,
    mine,
    report,
    rescale,
    schema,
    trace,
)
from dlm_sway.cli import run as run_command
from dlm_sway.core.collection import collect_seldom, spare_the_end
from dlm_sway.core.errors import ExitCode

_COMPLETE = "_SWAY_COMPLETE"
_EPILOG = "Exit codes: 0 pass, 1 fail, 2 usage or bad input, 3 could not run, 4 inconclusive, 130 interrupted."

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=_EPILOG,
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"sway {version('dlm-sway')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Did my fine-tune do what I meant, and nothing else?"""


app.command("check", epilog=_EPILOG)(check.check)
app.command("run", epilog=_EPILOG)(run_command.run)
app.command("gate", epilog=_EPILOG)(gate.gate)
app.command("diff", epilog=_EPILOG)(diff.diff)
app.command("compare", epilog=_EPILOG)(compare.compare)
app.command("inspect", epilog=_EPILOG)(inspect.inspect)
app.command("autogen")(autogen.autogen)
app.command("chain", epilog=_EPILOG)(chain.chain)
app.command("convert", epilog=_EPILOG)(convert.convert)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.command("report")(report.report)
app.command("list-probes")(list_probes.list_probes)
app.command("rescale")(rescale.rescale)
app.command("mine")(mine.mine)
app.command("trace")(trace.trace)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the command line and end the process with its exit code."""
    collect_seldom()
    code = run(sys.argv[1:])
    spare_the_end()
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong becomes one line on stderr."""
    console.never_without_streams()
    console.never_fail_to_encode()
    try:
        code = _invoke(args)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as fault:  # noqa: BLE001 (the last line before the user: no traceback passes)
        code = faults.explain(fault)
        console.discard(sys.stdout)
    console.print_line("", end="")  # a warning that found no reader must not fail again in the flush at exit
    return code


def _invoke(args: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(args), prog_name="sway", standalone_mode=False)
    except SystemExit as end:
        if _COMPLETE in os.environ:
            return (
                end.code if isinstance(end.code, int) else 0
            )  # a shell asked what could come next; the answer was printed
        # typer ends so where the reader of its help has left; never a verdict, so never 0 or 1
        return int(ExitCode.ERROR)
    # typer turns Ctrl-C inside a command into this code before anybody can say so.
    return faults.interrupted() if code == ExitCode.INTERRUPTED else int(code or 0)
