"""`sway autogen`: write the suite that tests an adapter from the data that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from dlm_sway.cli.options import Base, Draws, Seed, option
from dlm_sway.cli.outputs import places
from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlm_sway.data.autogen import Written

_SUITES: Final = (".yaml", ".yml")

Sources: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="DATA...", help="What it was trained on: files, folders, ids; NAME=WEIGHT.")
]
ItsAdapter: TypeAlias = Annotated[
    Path | None,
    option("--adapter", metavar="DIR", help="The adapter; of a .dlm document it is found."),
]
HeldOutPart: TypeAlias = Annotated[
    str,
    option("--held-out", metavar="WHAT", help="A file, a share such as 0.2 or 20%, auto or none."),
]
Budget: TypeAlias = Annotated[
    str | None,
    option("--budget", metavar="TIME", help="What a run may take: 2m, 10m, 1h."),
]
Out: TypeAlias = Annotated[
    Path,
    option("-o", "--out", metavar="FILE", help="The suite to write; - for standard output."),
]
Force: TypeAlias = Annotated[
    bool,
    option("--force", help="Write over a file that is there."),
]


def autogen(
    data: Sources,
    *,
    adapter: ItsAdapter = None,
    base: Base = None,
    held_out: HeldOutPart = "auto",
    budget: Budget = None,
    out: Out = Path("sway.yaml"),
    n_draws: Draws = 39,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write a suite from training data: the probes it can feed, how decisive each is, and what was left out.

    DATA is text, Markdown, JSON, JSONL, Parquet, a .dlm document, or a data
    set's folder or id. No model is loaded.
    """
    from dlm_sway.core.files import write_atomic
    from dlm_sway.data.autogen import autogen as write_suite
    from dlm_sway.data.cost import parse_budget
    from dlm_sway.data.material import parse_source
    from dlm_sway.data.splits import parse_held_out
    from dlm_sway.stats.power import require_draws

    require_draws(n_draws)
    seconds = None if budget is None else parse_budget(budget)
    sources, held = [parse_source(name) for name in data], parse_held_out(held_out)
    read = [*(source.name for source in sources), held.name or None, base]
    target = None if str(out) == "-" else _free(out, read, adapter, force=force)
    written = write_suite(
        sources,
        adapter=None if adapter is None else adapter.expanduser(),
        base=base,
        held_out=held,
        budget=seconds,
        draws=n_draws,
        seed=seed,
        beside=None if target is None else target.parent,
    )
    if target is None:
        typer.echo(written.text, nl=False)
        return
    write_atomic(target, written.text)
    _show(written, target)


def _free(out: Path, read: Sequence[str | None], adapter: Path | None, *, force: bool) -> Path:
    """Return the place of the suite, which can be written, is not taken, and is nothing that is read."""
    if out.suffix in _SUITES:  # a suite may stand in a folder of data, of which it is none
        read = [name for name in read if name is None or not Path(name).expanduser().is_dir()]
    target = places(reads=read, adapters=[adapter], out=out)["out"]
    if target.exists() and not force:
        raise BadInputError("is there already", where=target, remedy="name another file with -o, or give --force")
    return target


def _show(written: Written, target: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from dlm_sway.cli.console import stdout_console
    from dlm_sway.data.cost import clock, seconds
    from dlm_sway.report.layout import print_trimmed
    from dlm_sway.report.text import clean

    console, plan = stdout_console(), written.plan
    lines = [*written.material.summaries, plan.feed.split.how, *written.notes]
    for line in [*lines, *(f"cannot be tested: {what}" for what in plan.feed.split.cannot)]:
        console.print(Text(clean(line)), soft_wrap=True)
    console.print()
    table = Table.grid(padding=(0, 2, 0, 0))
    for probe in plan.probes:
        time = clock(seconds(probe.view_tokens, plan.weights))
        table.add_row(Text(clean(probe.kind), "bold"), Text(time), Text(clean(probe.power)))
    for left in plan.left_out:
        table.add_row(Text(clean(left.kind), "dim"), Text("-", "dim"), Text(clean(f"left out: {left.why}"), "dim"))
    print_trimmed(table, console)
    console.print()
    console.print(Text(clean(f"{target}: {len(plan.probes)} probes, about {clock(plan.seconds)}")), soft_wrap=True)
    if written.adapter is None:
        console.print(Text("Put the directory of your adapter under `models` first."), soft_wrap=True)
