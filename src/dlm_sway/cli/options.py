"""Options that several commands share, so that one word means one thing everywhere.

Each can also be set by an environment variable, `SWAY_` and its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer


def option(*names: str, **settings: Any) -> Any:
    """Return a `typer.Option` that the environment can set too: `--held-out` is `SWAY_HELD_OUT`.

    Args:
        names: as on the command line; the first long one names the variable.
        settings: whatever else `typer.Option` takes.
    """
    long = next(name for name in names if name.startswith("--"))
    variable = "SWAY_" + long.partition("/")[0].removeprefix("--").upper().replace("-", "_")
    return typer.Option(*names, envvar=variable, show_envvar=False, **settings)


class Dtype(StrEnum):
    """What the model computes in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


Adapter: TypeAlias = Annotated[
    Path, typer.Argument(metavar="ADAPTER", help="Directory of the adapter, as PEFT saves it.")
]
Base: TypeAlias = Annotated[
    str | None,
    option("--base", metavar="BASE", help="Directory or Hub id; default: as recorded."),
]
Backend: TypeAlias = Annotated[
    str,
    option("--backend", metavar="KIND", help="What loads the model: hf, or mlx."),
]
Data: TypeAlias = Annotated[
    Path | None,
    option("--data", metavar="FILE", help="What it was trained on."),
]
HeldOut: TypeAlias = Annotated[
    Path | None,
    option("--held-out", metavar="FILE", help="The same kind, never trained on."),
]
Draws: TypeAlias = Annotated[
    int,
    option("--draws", metavar="N", help="Null adapters to compare with; at least 19."),
]
Quick: TypeAlias = Annotated[
    bool,
    option("--quick", help="19 draws, and only the beginning of at most 32 texts: faster, less sure."),
]
BatchTokens: TypeAlias = Annotated[
    int | None,
    option("--batch-tokens", metavar="N", min=1, help="Tokens a pass at most; fewer need less memory."),
]
Cache: TypeAlias = Annotated[
    bool,
    option("--cache", help="Keep results, and use those of earlier runs."),
]
Resume: TypeAlias = Annotated[
    bool,
    option("--resume", help="Go on where a run with --resume or --cache stopped."),
]
TracePath: TypeAlias = Annotated[
    Path | None,
    option("--trace", metavar="FILE", help="Write where the time goes."),
]
JsonPath: TypeAlias = Annotated[
    Path | None,
    option("--json", metavar="PATH", help="Write all that was found as JSON; - is stdout."),
]
MarkdownPath: TypeAlias = Annotated[
    Path | None,
    option("--markdown", metavar="PATH", help="Write a pull-request comment; - is stdout."),
]
HtmlPath: TypeAlias = Annotated[
    Path | None,
    option("--html", metavar="PATH", help="Write a page with pictures, one file; - is stdout."),
]
JunitPath: TypeAlias = Annotated[
    Path | None,
    option("--junit", metavar="PATH", help="Write JUnit XML for CI; - is stdout."),
]
Seed: TypeAlias = Annotated[
    int,
    option("--seed", metavar="N", help="Seed of all randomness; same seed, same result."),
]
Quiet: TypeAlias = Annotated[bool, option("--quiet", help="Show no progress.")]
Device: TypeAlias = Annotated[
    str,
    option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."),
]
DtypeOption: TypeAlias = Annotated[
    Dtype,
    option("--dtype", help="What to compute in; auto is fp32 on a CPU."),
]

AllowCustom: TypeAlias = Annotated[
    bool,
    option("--allow-custom", help="Import and run the code that a spec names as its backend."),
]


SuiteFile: TypeAlias = Annotated[Path, typer.Argument(metavar="SPEC", help="A suite file, such as sway.yaml.")]
Only: TypeAlias = Annotated[
    list[str],
    option("--only", metavar="NAME", help="Run this probe alone; may be repeated."),
]
Skip: TypeAlias = Annotated[
    list[str],
    option("--skip", metavar="NAME", help="Leave this probe out; may be repeated."),
]
Limit: TypeAlias = Annotated[
    int | None,
    option("--limit", metavar="N", min=1, help="Read N items of each list at most."),
]
Fast: TypeAlias = Annotated[
    bool,
    option("--fast", help="Draw in rounds of 19, 39, 99; stop when decided."),
]
Weights: TypeAlias = Annotated[
    str | None,
    option("--weights", metavar="K=V,...", help="What a category counts."),
]
SuiteDraws: TypeAlias = Annotated[
    int | None,
    option("--draws", metavar="N", help="Null adapters to compare with."),
]
SuiteCache: TypeAlias = Annotated[bool, option("--cache", help="Use what earlier runs scored.")]
SuiteResume: TypeAlias = Annotated[bool, option("--resume", help="Go on where the last run stopped.")]
SuiteSeed: TypeAlias = Annotated[
    int | None,
    option("--seed", metavar="N", help="Seed of all randomness."),
]
SuiteDevice: TypeAlias = Annotated[
    str | None,
    option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."),
]
SuiteDtype: TypeAlias = Annotated[Dtype | None, option("--dtype", help="What to compute in.")]


def is_given(ctx: typer.Context, name: str) -> bool:
    """Return whether an argument was given on the command line; what the environment sets is for all commands."""
    source = ctx.get_parameter_source(name)  # typer has brought its own copy of this enum along, and once did not
    return source is not None and source.name == "COMMANDLINE"


def given(ctx: typer.Context, names: Iterable[str]) -> list[str]:
    """Return those of the arguments that were given on the command line, as options: `--n` for `n`."""
    wanted = frozenset(names)
    return [p.opts[0] for p in ctx.command.params if p.name in wanted and is_given(ctx, str(p.name))]
