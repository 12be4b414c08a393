"""`sway list-probes`: what each probe asks, against what, and when it passes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Final

_FIELDS: Final = ("Asks", "Null", "Statistic", "Passes when", "Costs")
_FIELD: Final = re.compile(rf"^({'|'.join(_FIELDS)}):\s*(.*)$")


def list_probes() -> None:
    """List the probes: what each asks, its null, its statistic, when it passes and what it costs."""
    from rich.table import Table
    from rich.text import Text

    from dlm_sway.cli.console import stdout_console
    from dlm_sway.probes.registry import probes
    from dlm_sway.report.layout import print_trimmed
    from dlm_sway.report.text import clean

    console = stdout_console()
    for number, (kind, probe) in enumerate(sorted_by_category(probes()).items()):
        if number:
            console.print()
        console.print(Text.assemble((clean(kind), "bold"), f"  {clean(_category(probe))}"), soft_wrap=True)
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, text in described(probe).items():
            table.add_row(Text(name, style="dim"), Text(clean(text)))
        if table.row_count:
            print_trimmed(table, console, indent=2)


def sorted_by_category(found: Mapping[str, type]) -> dict[str, type]:
    """Return the probes by category, then by kind."""
    return dict(sorted(found.items(), key=lambda item: (_category(item[1]), item[0])))


def described(probe: type) -> dict[str, str]:
    """Return the fields of a probe's docstring (Asks, Null, Statistic, Passes when, Costs) that it has, in that order.

    A field runs over the lines that follow it, up to a blank line or the next field.
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in (inspect.getdoc(probe) or "").splitlines():
        start = _FIELD.match(line.strip())
        if start:
            current = found.setdefault(start[1], [])
            current.append(start[2])
        elif not line.strip():
            current = None
        elif current is not None:
            current.append(line.strip())
    return {name: " ".join(found[name]).strip() for name in _FIELDS if name in found}


def _category(probe: type) -> str:
    return str(getattr(probe, "category", ""))
