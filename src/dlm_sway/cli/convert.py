"""`sway convert`: an adapter in another format."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dlm_sway.cli.options import Base, option


class Format(StrEnum):
    """What an adapter is converted to."""

    GGUF = "gguf"
    MLX = "mlx"
    PEFT = "peft"


def convert(
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER", help="Directory of the adapter, as PEFT or mlx_lm saves it, or a GGUF LoRA file."
        ),
    ],
    *,
    to: Annotated[
        Format,
        option("--to", help="gguf: a file for llama.cpp; mlx: a directory for mlx_lm; peft: a directory."),
    ],
    out: Annotated[
        Path,
        option("--out", "-o", metavar="OUT", help="What to write; must not exist."),
    ],
    base: Base = None,
) -> None:
    """Write a LoRA adapter in another format, factor by factor, without loading a model.

    What the other format cannot say (DoRA, biases, embeddings, weights trained
    whole) is refused by name.
    """
    from dlm_sway.adapters.convert import convert as run
    from dlm_sway.core.extras import needs_extra

    with needs_extra("converting to and from GGUF"):
        lora = run(adapter.expanduser(), to=to.value, out=out.expanduser(), base=base)
    ranks = sorted({f.rank for f in lora.values()})
    span = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    typer.echo(f"{out}: {len(lora)} modules, rank {span}")
