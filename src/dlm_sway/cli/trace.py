"""`sway trace`: where the time of a run went."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from dlm_sway.engine.trace_summary import Group, TraceSummary

_NAMED: Final = 5
_NUMBERS: Final = ("views", "passes", "seconds", "share", "tokens", "tokens/s", "cached")


def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sway check --trace FILE` wrote.")],
) -> None:
    """Sum up a trace: the time by path, views and reducers, and by probe.

    Tokens are counted once a view, padding included; cached are positions that needed no pass.
    """
    from rich.text import Text

    from dlm_sway.cli.console import stdout_console
    from dlm_sway.engine.trace_summary import read_trace
    from dlm_sway.report.layout import print_trimmed
    from dlm_sway.report.text import clean

    found = read_trace(file.expanduser())
    console = stdout_console()
    for line in (headline(found), *bad_lines(found)):
        console.print(Text(clean(line)), soft_wrap=True)
    console.print()
    print_trimmed(_by_kind(found), console, indent=2)
    if found.probes:
        console.print()
        print_trimmed(_by_probe(found), console, indent=2)


def headline(found: TraceSummary) -> str:
    """Return the totals in one line."""
    total = found.total
    seconds = total.ms / 1000
    outside = max(found.run_s - seconds, 0.0)
    return (
        f"{total.tokens:,} view-tokens in {total.passes:,} passes and {seconds:.1f} s{_rate(total, ' ({} tokens/s)')}, "
        f"{outside:.1f} s between them; {total.hit:,} positions from the cache"
    )


def bad_lines(found: TraceSummary) -> tuple[str, ...]:
    """Return a line that counts and names what could not be read, or nothing."""
    if not found.bad:
        return ()
    named = ", ".join(str(number) for number in found.bad[:_NAMED]) + (", ..." if len(found.bad) > _NAMED else "")
    what = "1 line is no trace and is" if len(found.bad) == 1 else f"{len(found.bad):,} lines are no trace and are"
    return (f"{what} left out: {named}",)


def _by_kind(found: TraceSummary) -> Table:
    table = _table("path", "reducers", numbers=_NUMBERS)
    for (path, views, reducers), group in found.groups.items():
        _add(table, (path, " ".join(reducers)), (str(views or ""), *_figures(group, found.total)))
    _add(table, ("all", ""), ("", *_figures(found.total, found.total)))
    return table


def _by_probe(found: TraceSummary) -> Table:
    table = _table("probe", numbers=("seconds", "share"))
    for probe, ms in found.probes.items():
        _add(table, (probe,), (f"{ms / 1000:.2f}", _share(ms, found.total.ms)))
    return table


def _table(*words: str, numbers: Iterable[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for word in words:
        table.add_column(word)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _add(table: Table, words: Iterable[str], numbers: Iterable[str]) -> None:
    from rich.text import Text

    from dlm_sway.report.text import clean

    table.add_row(*(Text(clean(word)) for word in words), *(Text(number) for number in numbers))


def _figures(group: Group, total: Group) -> tuple[str, ...]:
    return (
        f"{group.passes:,}",
        f"{group.ms / 1000:.2f}",
        _share(group.ms, total.ms),
        f"{group.tokens:,}",
        _rate(group, "{}"),
        f"{group.hit:,}",
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""


def _rate(group: Group, form: str) -> str:
    return form.format(f"{1000 * group.tokens / group.ms:,.0f}") if group.ms and group.tokens else ""
