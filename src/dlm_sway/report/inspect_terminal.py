"""An inspection on a terminal: verdict first, then faults with their remedies, then a row a module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlm_sway.adapters.inspection import Fault, Inspection, ModuleRow
from dlm_sway.core.result import Verdict
from dlm_sway.report.layout import print_trimmed
from dlm_sway.report.marks import ascii_only, mark
from dlm_sway.report.numbers import figure
from dlm_sway.report.text import clean

_ROWS_SHOWN: Final = 20
_OUTLIER: Final = 10.0
_OUTLIERS_SHOWN: Final = 10
_INDENT: Final = 2
_AS_VERDICT: Final = {"fail": Verdict.FAIL, "warn": Verdict.WARN, "info": Verdict.SKIP}
_ALL_FROM: Final = 120
_FEW: Final = (0, 1, 4, 5, 7)  # what fits beside a module's name in 80 columns; the JSON has all of it
_TITLES: Final = ("rank", "scale", "‖A‖", "‖B‖", "‖ΔW‖", "‖ΔW‖/‖W‖", "σ₁", "eff. rank")
_ASCII_TITLES: Final = ("rank", "scale", "|A|", "|B|", "|dW|", "|dW|/|W|", "s1", "eff. rank")


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print the report; up to 20 modules a line each, beyond that a line a layer type and the outliers."""
    headline = Text.assemble(mark(inspection.verdict, console, loud=True), "  ", clean(inspection.summary))
    console.print(headline, soft_wrap=True)
    base = f" on {clean(inspection.base)}" if inspection.base else ""
    console.print(Text(f"{clean(inspection.adapter)}{base}", style="dim"), soft_wrap=True)
    console.print(Text(describe(inspection), style="dim"), soft_wrap=True)
    for fault in inspection.faults:
        console.print()
        _print_fault(fault, console)
    if inspection.modules:
        console.print()
        _print_modules(inspection.modules, console)


def describe(inspection: Inspection) -> str:
    """Return what the adapter is on one line, such as `LORA, r 8, alpha 16, 60 tensors, 460,800 parameters`."""
    facts = inspection.facts
    parts = [clean(facts.peft_type or "unknown type")]
    if facts.rank is not None and facts.alpha is not None:
        parts += [f"r {facts.rank}", f"alpha {facts.alpha:g}"]
    parts += [name for name, on in (("rsLoRA", facts.use_rslora), ("DoRA", facts.use_dora)) if on]
    parts += [f"{facts.n_tensors:,} tensors", f"{facts.n_parameters:,} parameters"]
    if facts.sha256:
        parts.append(f"sha256 {facts.sha256[:12]}")
    return ", ".join(parts)


def _print_fault(fault: Fault, console: Console) -> None:
    label = Text("· info", style="dim") if fault.severity == "info" else mark(_AS_VERDICT[fault.severity], console)
    line = Text.assemble(label, "  ", (clean(fault.code), "bold"), "  ", clean(fault.message))
    console.print(line, soft_wrap=True)
    if fault.remedy:
        # Never folded: a remedy may be a command to copy.
        console.print(Text(f"{' ' * _INDENT}{clean(fault.remedy)}"), soft_wrap=True)


def _print_modules(rows: Sequence[ModuleRow], console: Console) -> None:
    if len(rows) <= _ROWS_SHOWN:
        _print_table("module", [(row.module, row.kind, _cells(row)) for row in rows], console)
        return
    groups = _by_layer_type(rows)
    lines = [(f"{name} ({len(found)})", found[0].kind, _group_cells(found)) for name, found in groups.items()]
    _print_table("modules (medians)", lines, console)
    outliers = _outliers(groups)
    if outliers:
        shown = outliers[:_OUTLIERS_SHOWN]
        console.print()
        more = f", {len(shown)} shown" if len(shown) < len(outliers) else ""
        console.print(Text(f"{len(outliers)} far from the others of their type{more}", style="bold"))
        _print_table("module", [(row.module, row.kind, _cells(row)) for row in shown], console)


def _print_table(title: str, lines: Sequence[tuple[str, str, tuple[str, ...]]], console: Console) -> None:
    titles = _ASCII_TITLES if ascii_only(console) else _TITLES
    chosen = range(len(titles)) if console.width >= _ALL_FROM else _FEW
    has_kinds = any(kind != "linear" for _, kind, _ in lines)
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title, overflow="fold")
    if has_kinds:
        table.add_column("kind", no_wrap=True)
    for number in chosen:
        table.add_column(titles[number], justify="right", no_wrap=True)
    for name, kind, cells in lines:
        kinds = [Text(kind)] if has_kinds else []
        table.add_row(Text(clean(name)), *kinds, *(Text(cells[number]) for number in chosen))
    print_trimmed(table, console, indent=_INDENT)


def _cells(row: ModuleRow) -> tuple[str, ...]:
    return _group_cells([row])


def _group_cells(rows: Sequence[ModuleRow]) -> tuple[str, ...]:
    """Return the medians over `rows` of what the table shows, in the order of its titles; ranks as a range."""
    ranks = [row.rank for row in rows if row.rank is not None]
    span = "-".join(str(rank) for rank in sorted({min(ranks), max(ranks)})) if ranks else ""
    columns = [
        [row.scale for row in rows],
        [row.norm_a for row in rows],
        [row.norm_b for row in rows],
        [row.norm_delta for row in rows],
        [row.ratio for row in rows],
        [row.spectral for row in rows],
        [row.effective_rank for row in rows],
    ]
    return (span, *(_middle([value for value in column if value is not None]) for column in columns))


def _middle(values: Sequence[float]) -> str:
    return figure(median(values)) if values else ""


def _by_layer_type(rows: Sequence[ModuleRow]) -> dict[str, list[ModuleRow]]:
    groups: dict[str, list[ModuleRow]] = {}
    for row in rows:
        groups.setdefault(re.sub(r"\.\d+(?=\.|$)", ".*", row.module), []).append(row)
    return groups


def _outliers(groups: dict[str, list[ModuleRow]]) -> list[ModuleRow]:
    """Return the modules whose change is a tenth or less, or ten times or more, of the median of their type."""
    found: list[tuple[float, ModuleRow]] = []
    for rows in groups.values():
        typical = median([row.norm_delta for row in rows if row.norm_delta is not None] or [0.0])
        for row in rows:
            if row.norm_delta is None:
                found.append((float("inf"), row))
            elif typical > 0 and not typical / _OUTLIER < row.norm_delta < typical * _OUTLIER:
                found.append((max(row.norm_delta / typical, typical / max(row.norm_delta, 1e-30)), row))
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])]
