"""What a gate and an estimate say on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from dlm_sway.report.gate import gate_view
from dlm_sway.report.layout import print_trimmed
from dlm_sway.report.marks import mark
from dlm_sway.report.text import clean

if TYPE_CHECKING:
    from rich.console import Console

    from dlm_sway.suite.estimate import Estimate
    from dlm_sway.suite.gate import Gate

_INDENT: Final = 2
_MINUTE: Final = 90


def print_gate(found: Gate, console: Console) -> None:
    """Print whether a gate is open, and what closed it."""
    view = gate_view(found)
    console.print(Text.assemble(mark(view.verdict, console, loud=True), f"  {view.headline}"), soft_wrap=True)
    for breach in view.breaches:
        console.print(Text(f"  {breach.why}: {breach.name}: {breach.message}"), soft_wrap=True)


def print_estimate(found: Estimate, files: tuple[str, ...], console: Console) -> None:
    """Print what a suite would cost."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for cost in found.probes:
        rounds = f"in {cost.rounds} round{'s' if cost.rounds != 1 else ''}"
        table.add_row(Text(clean(cost.name)), Text(f"{cost.view_tokens:,}"), Text(rounds, style="dim"))
    for name in files:
        table.add_row(Text(clean(name)), Text("0"), Text("reads files only", style="dim"))
    print_trimmed(table, console, indent=_INDENT)
    time = f", about {_time(found.seconds)} on this processor" if found.seconds is not None else ""
    console.print(Text(f"about {found.view_tokens:,} view-tokens{time}"), soft_wrap=True)
    how = "counted with the base's tokenizer" if found.counted == "tokenizer" else "estimated from characters"
    console.print(Text(f"tokens are {how}; nothing was loaded or scored", style="dim"), soft_wrap=True)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < _MINUTE else f"{seconds / 60:.0f} min"
