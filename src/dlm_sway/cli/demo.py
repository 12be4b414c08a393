"""`sway demo`: train an adapter, make its noise twin, and tell them apart."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dlm_sway.cli.options import JsonPath, Quiet, Seed
from dlm_sway.cli.outputs import ready_to_write
from dlm_sway.core.errors import BadInputError, ExitCode

_TITLE: Final = "One of these two adapters learned something"
_OPENING: Final = (
    "Same base, same layers, same size of change. One was trained on a short document; its twin has random weights in "
    "the place of what was learned. Both move the model, and both would look busy by size alone."
)

if TYPE_CHECKING:
    from rich.console import Console

    from dlm_sway.demo.run import DemoResult


def demo(
    *,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", envvar="SWAY_OUT", show_envvar=False, help="Where the model and both adapters go."),
    ] = Path("sway-demo"),
    json_path: JsonPath = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train a small adapter, make a twin of random weights, check both and show them side by side.

    DIR/report.html has the picture of it, DIR/trained.html and DIR/noise-twin.html all about each.
    Ends with 0 when the trained adapter passes and the twin has not learned, else 1.
    The first run downloads a model of 135 million parameters.
    """
    out = _place(out.expanduser())
    json_path = ready_to_write(json_path)

    from dlm_sway.cli.deliver import deliver
    from dlm_sway.cli.progress import show_progress
    from dlm_sway.demo.run import run_demo

    with show_progress(quiet=quiet) as progress:
        result = run_demo(out, seed=seed, progress=progress)
    told_apart = _told_apart(result)
    report = _write_pages(result, out)
    deliver(json_path, lambda: _document(result), lambda console: _show(result, report, console, told_apart=told_apart))
    raise typer.Exit(int(ExitCode.PASS if told_apart else ExitCode.FAIL))


def _place(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise BadInputError("is a file, not a directory", where=out, remedy="give --out a directory to make or reuse")
    if not out.absolute().parent.is_dir():
        raise BadInputError(f"{out.absolute().parent} is no directory that exists", where=out, remedy="create it first")
    return out


def _told_apart(result: DemoResult) -> bool:
    learned = result.twin.questions.get("learned")
    return result.trained.exit_code == ExitCode.PASS and learned is not None and learned.verdict == "fail"


def _document(result: DemoResult) -> str:
    from dlm_sway.report.json import check_document, dumps
    from dlm_sway.suite.result import SCHEMA_VERSION

    trained, twin = (check_document(found) for found in (result.trained, result.twin))
    return dumps({"schema_version": SCHEMA_VERSION, "trained": trained, "twin": twin})


def _write_pages(result: DemoResult, out: Path) -> Path:
    """Write a page about each and one that sets them side by side; return the path of that one."""
    from dlm_sway.core.files import write_atomic
    from dlm_sway.report.html.pair import to_pair_html
    from dlm_sway.report.write import write_report

    trained, twin = ("trained", result.trained), ("noise twin", result.twin)
    for name, found in (("trained", result.trained), ("noise-twin", result.twin)):
        write_report(found, out / f"{name}.html", "html")
    links = (("the trained one", "trained.html"), ("its twin", "noise-twin.html"))
    report = out / "report.html"
    write_atomic(report, to_pair_html(trained, twin, title=_TITLE, opening=_OPENING, links=links))
    return report


def _show(result: DemoResult, report: Path, console: Console, *, told_apart: bool) -> None:
    from dlm_sway.report.compare_terminal import print_comparison

    print_comparison(("trained", result.trained), ("noise twin", result.twin), console)
    console.print()
    console.print(
        "sway tells them apart: the trained adapter passes, the twin has learned nothing."
        if told_apart
        else "sway did not tell them apart here, which this demo expects it to; please report it with --json.",
        soft_wrap=True,
    )
    console.print()
    console.print(f"The picture: {report}", soft_wrap=True)
    console.print("Next: look inside, or check an adapter of your own", soft_wrap=True)
    for command in (f"sway inspect {shlex.quote(str(result.adapter_dir))}", "sway check ADAPTER --data FILE"):
        console.print(f"  {command}", soft_wrap=True)
