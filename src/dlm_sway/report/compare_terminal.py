"""Two adapters side by side: their verdicts, a picture of what they are worth, and their answers."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlm_sway.report.layout import print_trimmed
from dlm_sway.report.marks import ascii_only, mark
from dlm_sway.report.model import Row, label, rows
from dlm_sway.report.strip import learned_strip, legend, multiples, plot
from dlm_sway.report.terminal import print_headline
from dlm_sway.report.text import clean
from dlm_sway.suite.result import CheckResult

_INDENT: Final = 2
_MAX_PLOT: Final = 100


def print_comparison(first: tuple[str, CheckResult], second: tuple[str, CheckResult], console: Console) -> None:
    """Print two results side by side, each with the name that tells it apart.

    The picture is left out where a result does not carry the draws of its null.
    """
    pairs = (first, second)
    for name, result in pairs:
        print_headline(result, console, name=clean(name))
    console.print()
    _print_picture(pairs, console)
    print_trimmed(_table(pairs, console), console, indent=_INDENT)


def _print_picture(pairs: tuple[tuple[str, CheckResult], ...], console: Console) -> None:
    strips = [strip for name, result in pairs if (strip := learned_strip(clean(name), result)) is not None]
    if len(strips) != len(pairs):
        return
    plain = ascii_only(console)
    relative = multiples(strips)
    console.print("Learned, or would any weights of this size do the same?")
    if relative:
        console.print(Text("Size of the change, in multiples of the median null draw", style="dim"), soft_wrap=True)
    console.print()
    width = min(console.width, _MAX_PLOT) - _INDENT
    for line in plot(relative or strips, width=width, suffix="x" if relative else "", ascii_only=plain):
        console.print(Text(" " * _INDENT + line), soft_wrap=True)
    console.print(Text(" " * _INDENT + legend(ascii_only=plain), style="dim"), soft_wrap=True)
    console.print()


def _table(pairs: tuple[tuple[str, CheckResult], ...], console: Console) -> Table:
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name, _ in pairs:
        table.add_column(Text(clean(name)))
    answers = [{row.key: row for row in rows(result)} for _, result in pairs]
    for key in dict.fromkeys(key for found in answers for key in found):
        table.add_row(Text(label(key)), *(_cell(found.get(key), console) for found in answers))
    return table


def _cell(row: Row | None, console: Console) -> Text:
    if row is None:
        return Text("")
    numbers = ", ".join(part for part in (row.interval, f"p = {row.p}" if row.p else "") if part)
    text = mark(row.verdict, console)
    if row.effect:
        text = Text.assemble(text, "  ", row.effect)
    return Text.assemble(text, "\n", (numbers, "dim")) if numbers else text
