"""A comparison on a terminal: what became better or worse, what would decide the rest, who leads the table."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlm_sway.core.result import Verdict
from dlm_sway.report.compare_words import (
    claims_in,
    difference_of,
    headline,
    name_of,
    p_of,
    verdict_of,
    with_error,
)
from dlm_sway.report.layout import print_trimmed
from dlm_sway.report.marks import ascii_only, mark
from dlm_sway.report.text import clean
from dlm_sway.suite.compare_result import Comparison, Contrast, Outcome

_INDENT: Final = 2
_SIGNS: Final[dict[Outcome, tuple[str, str, str]]] = {
    "better": ("▲", "+", "green"),
    "worse": ("▼", "-", "bold red"),
    "differs": ("◆", "*", "yellow"),
    "no decided difference": ("=", "=", "dim"),
    "not comparable": ("·", ".", "dim"),
}


def print_compare(found: Comparison, console: Console) -> None:
    """Print a comparison; the first line says how it ends."""
    line = Text.assemble(mark(verdict_of(found), console, loud=True), "  ", _first_line(found))
    console.print(line, soft_wrap=True)
    for regression in found.regressions:
        claim = f": {regression.claim}" if regression.claim else ""
        words = f"{clean(regression.candidate)}, {clean(regression.probe + claim)}: {clean(regression.message)}"
        print_trimmed(Text.assemble(mark(Verdict.FAIL, console), "  ", words), console, indent=_INDENT)
    for remark in found.remarks:
        style = {"blocks": "bold red", "caution": "yellow", "note": "dim"}[remark.level]
        words = f"{clean(remark.candidate)}, {clean(remark.message)}"
        print_trimmed(Text.assemble((f"{remark.level}: ", style), words), console, indent=_INDENT)
    for candidate in found.candidates[1:]:
        console.print()
        console.print(Text(headline(found, candidate.name), style="bold"), soft_wrap=True)
        rows = [c for c in found.contrasts if c.candidate == candidate.name]
        print_trimmed(_contrasts(rows, console), console, indent=_INDENT)
    _print_table(found, console)


def _first_line(found: Comparison) -> str:
    n = len(found.regressions)
    if n:
        return f"{n} regression{'s' if n > 1 else ''} against {clean(found.reference)}"
    return f"no regression against {clean(found.reference)}" if found.comparable else "nothing could be compared"


def _contrasts(rows: list[Contrast], console: Console) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        *signs, style = _SIGNS[row.outcome]
        text = Text.assemble(name_of(row), "  ", (row.outcome, style))
        numbers = ", ".join(part for part in (difference_of(row), p_of(row)) if part)
        text.append(f"\n{numbers}" if numbers else "")
        text.append(f"\n{clean(row.message)}", style="dim")
        table.add_row(Text(signs[ascii_only(console)], style=style), text)
    return table


def _print_table(found: Comparison, console: Console) -> None:
    words = {(s.probe, s.claim): s for s in found.selections}
    for key, rows in claims_in(found.table).items():
        console.print()
        head = f"{name_of(rows[0])}, {clean(rows[0].unit)}, on {rows[0].n_items} items that all have"
        console.print(Text(head, style="bold"), soft_wrap=True)
        table = Table.grid(padding=(0, 2, 0, 0))
        for row in rows:
            best = row is rows[0]
            apart = "best" if best else with_error(row.difference, row.se_difference, signed=True)
            table.add_row(Text(clean(row.candidate)), Text(with_error(row.value, row.se)), Text(apart))
        print_trimmed(table, console, indent=_INDENT)
        if key in words:
            style = "yellow" if words[key].artefact else "dim"
            print_trimmed(Text(clean(words[key].message), style=style), console, indent=_INDENT)
