"""`sway compare`: results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from dlm_sway.cli.options import JsonPath, MarkdownPath, option
from dlm_sway.cli.outputs import places

if TYPE_CHECKING:
    from dlm_sway.suite.compare_result import Comparison

FailOnRegression: TypeAlias = Annotated[
    bool,
    option("--fail-on-regression", help="End with 1 on a regression, with 4 where nothing could be compared."),
]
Alpha: TypeAlias = Annotated[
    float,
    option("--alpha", metavar="X", min=0.0001, max=0.5, help="Level of every decision, after adjustment."),
]


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="A.json B.json ...", help="JSON of runs or checks; the first is compared with."),
    ],
    *,
    fail_on_regression: FailOnRegression = False,
    alpha: Alpha = 0.05,
    json_path: JsonPath = None,
    markdown: MarkdownPath = None,
) -> None:
    """Compare results: what became better or worse, and how sure that is.

    Claims are paired on the items that both results hold. A probe that
    vanished, is in error or turned from pass to fail, and a difference that
    is decided for the worse, are regressions. Nothing is run.
    """
    from dlm_sway.suite.compare import compare as compared

    wanted = places(reads=results, json=json_path, markdown=markdown)
    found = compared(results[0], *results[1:], alpha=alpha)
    show(found, json_path=wanted.get("json"), markdown=wanted.get("markdown"))
    raise typer.Exit(int(found.gate()) if fail_on_regression else 0)


def show(found: Comparison, *, json_path: Path | None, markdown: Path | None) -> None:
    """Write what was asked for, then print the comparison.

    Raises:
        CannotRunError: a file could not be written; raised after the report.
    """
    from dlm_sway.cli.deliver import deliver_all
    from dlm_sway.report.compare_suite_markdown import compare_markdown
    from dlm_sway.report.compare_suite_terminal import print_compare
    from dlm_sway.report.json import dumps

    files = [
        (json_path, lambda: dumps(found.model_dump(mode="json"))),
        (markdown, lambda: compare_markdown(found)),
    ]
    deliver_all(files, lambda console: print_compare(found, console))
