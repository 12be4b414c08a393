"""`sway mine`: what a fine-tune did to its data, and the inputs on which it shows most."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from dlm_sway.cli.options import Adapter, Base, Device, Dtype, DtypeOption, Quiet, Seed, is_given, option
from dlm_sway.cli.outputs import places
from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dlm_sway.data.feed import Feed
    from dlm_sway.data.mine_gains import Moved, Read


class Mode(StrEnum):
    """What is looked for."""

    PARAPHRASE = "paraphrase"
    OUTLIERS = "outliers"
    TOKENS = "tokens"


TrainedOn: TypeAlias = Annotated[
    str,
    option("--data", metavar="DATA", help="What it was trained on: a file, folder or id."),
]
LookFor: TypeAlias = Annotated[
    Mode,
    option("--mode", help="What to look for."),
]
Rows: TypeAlias = Annotated[
    int,
    option("--n", metavar="N", min=1, help="Rows to show, or cases to mine."),
]
MostItems: TypeAlias = Annotated[
    int,
    option("--items", metavar="N", min=1, help="Texts to read at most."),
]
Out: TypeAlias = Annotated[
    Path | None,
    option("-o", "--out", metavar="FILE", help="Write mined cases here, to paste in a suite."),
]


def mine(
    ctx: typer.Context,
    adapter: Adapter,
    *,
    data: TrainedOn,
    mode: LookFor = Mode.TOKENS,
    base: Base = None,
    n: Rows = 12,
    most: MostItems = 64,
    out: Out = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.AUTO,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Show what a fine-tune did: tokens that moved, texts that changed most and least, wordings that lose an answer.

    Nothing is judged here. What was picked because it is extreme says nothing
    about the rest; probes judge.
    """
    from dlm_sway.cli.console import stdout_console
    from dlm_sway.cli.faults import pass_on_warnings
    from dlm_sway.data.material import parse_source, read_material

    if mode is not Mode.PARAPHRASE and is_given(ctx, "out"):
        what = f"--mode {mode} shows what it finds and has no cases to write, so --out would stay without a file"
        raise BadInputError(what, where=out, remedy="leave it out, or give --mode paraphrase")
    pass_on_warnings()
    source = parse_source(data)
    spec = _spec(adapter.expanduser(), base, device=device, dtype=dtype.value)
    out = places(reads=[source.name, spec.base], adapters=[adapter], out=out).get("out")
    material = read_material([source], seed=seed)
    feed = _feed(material.sections, seed=seed, most=most, cases=n)
    found = _asked(spec, feed, _embedder() if mode is Mode.PARAPHRASE else None, quiet=quiet)
    console = stdout_console()
    _say(console, material.summaries[0])
    if mode is Mode.PARAPHRASE:
        _show_paraphrases(console, found, out, n=n)
    elif mode is Mode.TOKENS:
        _show_tokens(console, found, n=n)
    else:
        _show_outliers(console, found, n=n)


def _asked(spec: Any, feed: Feed, embed: Any, *, quiet: bool) -> Any:
    """Return what an opened model says of the data."""
    from dlm_sway.cli.faults import ctrl_c_explained
    from dlm_sway.cli.progress import show_progress

    with ctrl_c_explained(), show_progress(quiet=quiet) as progress:
        from dlm_sway.backends.registry import open_backend

        progress.phase("loading the base")
        backend = open_backend(spec)
        try:
            return _found(backend, feed, embed, progress)
        finally:
            backend.close()


def _spec(adapter: Path, base: str | None, *, device: str, dtype: str) -> Any:
    from dlm_sway.adapters.config import load_config
    from dlm_sway.adapters.recorded_base import at_recorded_revision
    from dlm_sway.core.model import ModelSpec

    named = base or load_config(adapter).base_model_name_or_path
    if named is None:
        raise BadInputError("the adapter does not record its base", where=adapter, remedy="name it with --base")
    spec = ModelSpec.model_validate({"base": named, "adapter": adapter, "device": device, "dtype": dtype})
    return at_recorded_revision(spec)


def _feed(sections: Sequence[Any], *, seed: int, most: int, cases: int) -> Feed:
    from dlm_sway.data.feed import SIZES, Feed
    from dlm_sway.data.splits import Split

    sizes = {**SIZES, "trained": most, "cases": cases}
    return Feed(Split(tuple(sections), (), "all of it"), seed=seed, sizes=sizes)


def _embedder() -> Any:
    from dlm_sway.probes.embed import MINILM, open_embedder

    return open_embedder(MINILM)


def _found(backend: Any, feed: Feed, embed: Any, progress: Any) -> Any:
    from dlm_sway.data.mine_gains import read_gains
    from dlm_sway.data.mine_paraphrases import mine_paraphrases

    progress.phase("reading what it was trained on")
    if embed is not None:
        return mine_paraphrases(backend, feed, embed, progress=progress)
    return read_gains(backend, feed.trained_items, progress=progress)


def _say(console: Console, line: str, *, style: str = "") -> None:
    from rich.text import Text

    from dlm_sway.report.text import clean

    console.print(Text(clean(line), style), soft_wrap=True)


def _show_tokens(console: Console, reads: Sequence[Read], *, n: int) -> None:
    from dlm_sway.data.mine_gains import moved_tokens

    up, down = moved_tokens(reads, n=n)
    total = sum(read.gain.size for read in reads)
    _say(console, f"{total:,} tokens of {len(reads)} texts; change in log-prob, nat; probability base -> fine-tune")
    for title, rows in (("More probable", up), ("Less probable", down)):
        console.print()
        _say(console, title, style="bold")
        _table(console, rows)


def _table(console: Console, rows: Sequence[Moved]) -> None:
    from rich.table import Table
    from rich.text import Text

    from dlm_sway.report.layout import print_trimmed
    from dlm_sway.report.text import clean

    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        cells = (repr(row.token), f"{row.n} x", f"{row.mean:+.2f}", row.example)
        table.add_row(*(Text(clean(cell)) for cell in cells))
    if rows:
        print_trimmed(table, console, indent=2)
    else:
        _say(console, "  none")


def _show_outliers(console: Console, reads: Sequence[Read], *, n: int) -> None:
    from dlm_sway.data.mine_gains import largest, outliers
    from dlm_sway.probes.inputs import shown

    for title, rows in zip(("Changed most", "Changed least"), outliers(reads, n=n), strict=True):
        console.print()
        _say(console, title, style="bold")
        for read in rows:
            _say(console, f"  {read.mean:+.3f} nat/token  {read.item.label}  {shown(read.item.completion, limit=80)}")
            for line in largest(read):
                _say(console, f"      {line}", style="dim")


def _show_paraphrases(console: Console, found: Any, out: Path | None, *, n: int) -> None:
    from dlm_sway.core.files import write_atomic
    from dlm_sway.data.mine_paraphrases import cases_text
    from dlm_sway.probes.inputs import shown

    mined, n_lost = found
    _say(console, f"{len(mined)} questions; {n_lost} wordings left out since they no longer ask for the same")
    if not mined:
        raise BadInputError("no question has two other wordings that keep its meaning", remedy="give more data")
    for case in mined[:n]:
        console.print()
        _say(console, f"{case.gain:+.3f} nat/token  {shown(case.prompt, limit=100)}", style="bold")
        for word in case.wordings:
            _say(console, f"  {word.gain:+.3f}  {shown(word.text, limit=100)}  (by {word.by}, alike {word.alike:.2f})")
    text = cases_text(mined[:n])
    console.print()
    if out is None:
        _say(console, "Paste this under `suite:`", style="bold")
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text)
        _say(console, f"{out}: a probe of {min(n, len(mined))} cases, to paste under `suite:`")
