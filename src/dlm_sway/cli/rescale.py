"""`sway rescale`: the same adapter with a smaller or larger effect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlm_sway.cli.options import Adapter, option


def rescale(
    adapter: Adapter,
    *,
    lam: Annotated[
        float,
        option("--lam", metavar="X", help="Share of its effect to keep, such as 0.5."),
    ],
    out: Annotated[
        Path,
        option("--out", "-o", metavar="DIR", help="Where to write the new adapter."),
    ],
    force: Annotated[
        bool,
        option("--force", help="Replace an adapter that stands there."),
    ] = False,
) -> None:
    """Write an adapter whose effect is X times that of ADAPTER, by its alpha; no weight is changed.

    LoRA and rsLoRA alone: DoRA and tensors trained whole need the base, and are refused. Needs no torch.
    """
    from dlm_sway.adapters.rescale import rescale as write
    from dlm_sway.report.text import clean

    done = write(adapter.expanduser(), lam, out.expanduser(), force=force)
    before, after = done.alpha
    typer.echo(f"wrote {clean(done.out)}: {done.lam:g} times the effect (lora_alpha {before:g} -> {after:g})")
    if done.recorded != done.lam:
        typer.echo(f"{clean(adapter)} was rescaled before: this is {done.recorded:g} times the effect as trained")
    typer.echo(f"check it with: sway check {_quoted(done.out)}")


def _quoted(path: Path) -> str:
    import shlex

    from dlm_sway.report.text import clean

    return shlex.quote(clean(path))
