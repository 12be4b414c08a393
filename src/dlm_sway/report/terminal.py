"""The report on a terminal: one line of verdict, a line a question, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlm_sway.core.result import Verdict
from dlm_sway.report.layout import print_trimmed
from dlm_sway.report.marks import mark
from dlm_sway.report.model import Row, headline, next_steps, rows
from dlm_sway.report.text import clean
from dlm_sway.report.work import work_line
from dlm_sway.suite.result import CheckResult

_COLUMNS_FROM: Final = 140  # every part in a column of its own, and forty characters left for the words
_NEEDS_WORDS: Final = frozenset({Verdict.FAIL, Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.SKIP})
_TITLES: Final = ("", "question", "effect", "95 % interval", "p", "against")
_NULL_WIDTH: Final = 24  # a longer name of a null folds, so that the words keep their column
_INDENT: Final = 2


def print_check(result: CheckResult, console: Console) -> None:
    """Print the report of a check."""
    print_headline(result, console)
    base = f" on {clean(result.base)}" if result.base else ""
    console.print(Text(f"{clean(result.adapter)}{base}", style="dim"), soft_wrap=True)
    print_rows(rows(result), console)
    print_steps(next_steps(result), console)
    print_work(work_line(result), console)


def print_rows(found: Sequence[Row], console: Console) -> None:
    """Print the answers; in columns from 140 characters on, else numbers first and words where a number needs them."""
    if found:
        console.print()
        table = _columns(found, console) if console.width >= _COLUMNS_FROM else _lines(found, console)
        print_trimmed(table, console, indent=_INDENT)


def print_steps(steps: Sequence[str], console: Console) -> None:
    """Print what to do next, numbered."""
    if steps:
        console.print()
        console.print(Text("Next", style="bold"))
        print_trimmed(_numbered(steps), console, indent=_INDENT)


def print_work(line: str, console: Console) -> None:
    """Print what it took, as the last line."""
    if line:
        console.print()
        console.print(Text(line, style="dim"), soft_wrap=True)


def print_headline(result: CheckResult, console: Console, *, name: str = "") -> None:
    """Print the verdict and what it means on one line, never broken, so that `head -1` has all of it.

    Args:
        result: what was found.
        console: where to.
        name: stands in the place of the adapter's own, where several are told apart.
    """
    line = Text.assemble(mark(result.verdict, console, loud=True), "  ", headline(result, name=name))
    console.print(line, soft_wrap=True)


def _columns(found: Sequence[Row], console: Console) -> Table:
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in _TITLES[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(_TITLES[-1], max_width=_NULL_WIDTH, overflow="fold")
    table.add_column("in words", overflow="fold")
    for row in found:
        cells = (row.question, row.effect, row.interval, row.p, row.null, row.message)
        table.add_row(mark(row.verdict, console), *map(Text, cells))
    return table


def _lines(found: Sequence[Row], console: Console) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    marks = [mark(row.verdict, console) for row in found]
    left = console.width - _INDENT - max(map(len, marks)) - max(len(row.question) for row in found) - 4
    for shown, row in zip(marks, found, strict=True):
        table.add_row(shown, Text(row.question), _measure(row, left))
    return table


def _measure(row: Row, width: int) -> Text:
    """Return the numbers on one line where they fit, else the comparison on a second; then words where needed."""
    estimate = f"{row.effect} {row.interval}".strip()
    compared = f"{f'p = {row.p}' if row.p else ''} {f'against {row.null}' if row.null else ''}".strip()
    numbers = [part for part in (estimate, compared) if part]
    one_line = ", ".join(numbers)
    text = Text(one_line if len(one_line) <= width else "\n".join(numbers))
    if row.message and (row.verdict in _NEEDS_WORDS or not row.effect):
        text.append("\n" if numbers else "")
        text.append(row.message, style="dim" if numbers else "")
    return text


def _numbered(steps: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for number, step in enumerate(steps, start=1):
        table.add_row(Text(f"{number}."), Text(step))
    return table
