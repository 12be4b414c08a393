"""`sway cache`: what is kept of earlier runs, and forgetting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from dlm_sway.core.errors import CannotRunError

if TYPE_CHECKING:
    from dlm_sway.engine.disk_store import DiskStore, StoreInfo

_UNITS: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

app: Final = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Show or clear what `sway run` and `sway check --cache` keep.",
)


@app.command()
def info() -> None:
    """Say where results are kept, how many, and how much room they take."""
    from rich.text import Text

    from dlm_sway.cli.console import stdout_console
    from dlm_sway.report.text import clean

    console = stdout_console()
    with _opened() as store:
        found = store.info()
        console.print(Text(clean(store.path)), soft_wrap=True)
        for line in _described(found, max_bytes=store.max_bytes):
            console.print(Text(f"  {line}"), soft_wrap=True)


@app.command()
def clear() -> None:
    """Forget all results; the next `sway check --cache` scores anew."""
    with _opened() as store:
        before = store.info()
        if not store.clear():
            raise CannotRunError("could not be cleared", where=store.path, remedy="delete the file by hand")
        freed = max(before.file_bytes - store.info().file_bytes, 0)
    typer.echo(f"forgot {before.entries:,} results and freed {size(freed)}")


def size(n_bytes: float) -> str:
    """Return a number of bytes in the largest unit that it fills, such as `3.1 MiB`."""
    for unit, name in _UNITS:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return f"{n_bytes:.0f} bytes"


def _described(found: StoreInfo, *, max_bytes: int) -> tuple[str, ...]:
    if not found.entries or found.last_used is None:
        return ("nothing is kept; `sway check ADAPTER --cache` keeps results here",)
    from datetime import datetime

    used = datetime.fromtimestamp(found.last_used).astimezone()
    return (
        f"{found.entries:,} results, {size(found.value_bytes)} of values",
        f"{size(found.file_bytes)} on disk of at most about {size(max_bytes)}; the oldest make room",
        f"last used {used:%Y-%m-%d %H:%M}, to the hour",
    )


def _opened() -> DiskStore:
    from dlm_sway.cli.faults import pass_on_warnings
    from dlm_sway.core.paths import results_dir
    from dlm_sway.engine.disk_store import DiskStore

    pass_on_warnings()
    return DiskStore(results_dir())
