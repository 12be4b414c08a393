"""Options that several commands share, so that one word means one thing everywhere.

Each can also be set by an environment variable, `SWAY_` and its name.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


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
    typer.Option(
        "--base",
        metavar="BASE",
        envvar="SWAY_BASE",
        show_envvar=False,
        help="Directory or Hub id; default: as recorded.",
    ),
]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", envvar="SWAY_DATA", show_envvar=False, help="What it was trained on."),
]
HeldOut: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--held-out", metavar="FILE", envvar="SWAY_HELD_OUT", show_envvar=False, help="The same kind, never trained on."
    ),
]
Draws: TypeAlias = Annotated[
    int,
    typer.Option(
        "--draws",
        metavar="N",
        envvar="SWAY_DRAWS",
        show_envvar=False,
        help="Null adapters to compare with; at least 19.",
    ),
]
Quick: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--quick", envvar="SWAY_QUICK", show_envvar=False, help="19 draws on fewer tokens: faster, with less power."
    ),
]
BatchTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens",
        metavar="N",
        min=1,
        envvar="SWAY_BATCH_TOKENS",
        show_envvar=False,
        help="Tokens a pass at most; fewer need less memory.",
    ),
]
Cache: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--cache", envvar="SWAY_CACHE", show_envvar=False, help="Keep results, and use those of earlier runs."
    ),
]
Resume: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--resume", envvar="SWAY_RESUME", show_envvar=False, help="Go on where a run with --resume or --cache stopped."
    ),
]
TracePath: TypeAlias = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", envvar="SWAY_TRACE", show_envvar=False, help="Write where the time goes."),
]
JsonPath: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="PATH", envvar="SWAY_JSON", show_envvar=False, help="Write all that was found as JSON."
    ),
]
MarkdownPath: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--markdown", metavar="PATH", envvar="SWAY_MARKDOWN", show_envvar=False, help="Write a pull-request comment."
    ),
]
HtmlPath: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="PATH", envvar="SWAY_HTML", show_envvar=False, help="Write a page with pictures, one file."
    ),
]
JunitPath: TypeAlias = Annotated[
    Path | None,
    typer.Option("--junit", metavar="PATH", envvar="SWAY_JUNIT", show_envvar=False, help="Write JUnit XML for CI."),
]
Seed: TypeAlias = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        envvar="SWAY_SEED",
        show_envvar=False,
        help="Seed of all randomness; same seed, same result.",
    ),
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", envvar="SWAY_QUIET", show_envvar=False, help="Show no progress.")
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", envvar="SWAY_DEVICE", show_envvar=False, help="auto, cpu, cuda, cuda:1 or mps."
    ),
]
DtypeOption: TypeAlias = Annotated[
    Dtype,
    typer.Option("--dtype", envvar="SWAY_DTYPE", show_envvar=False, help="What to compute in; auto is fp32 on a CPU."),
]

AllowCustom: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-custom",
        envvar="SWAY_ALLOW_CUSTOM",
        show_envvar=False,
        help="Import and run the code that a spec names as its backend.",
    ),
]


SuiteFile: TypeAlias = Annotated[Path, typer.Argument(metavar="SPEC", help="A suite file, such as sway.yaml.")]
Only: TypeAlias = Annotated[
    list[str],
    typer.Option(
        "--only", metavar="NAME", envvar="SWAY_ONLY", show_envvar=False, help="Run this probe alone; may be repeated."
    ),
]
Skip: TypeAlias = Annotated[
    list[str],
    typer.Option(
        "--skip", metavar="NAME", envvar="SWAY_SKIP", show_envvar=False, help="Leave this probe out; may be repeated."
    ),
]
Limit: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, envvar="SWAY_LIMIT", show_envvar=False, help="Read N items of each list at most."
    ),
]
Fast: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--fast", envvar="SWAY_FAST", show_envvar=False, help="Draw in rounds of 19, 39, 99; stop when decided."
    ),
]
Weights: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--weights", metavar="K=V,...", envvar="SWAY_WEIGHTS", show_envvar=False, help="What a category counts."
    ),
]
SuiteDraws: TypeAlias = Annotated[
    int | None,
    typer.Option("--draws", metavar="N", envvar="SWAY_DRAWS", show_envvar=False, help="Null adapters to compare with."),
]
SuiteCache: TypeAlias = Annotated[
    bool, typer.Option("--cache", envvar="SWAY_CACHE", show_envvar=False, help="Use what earlier runs scored.")
]
SuiteResume: TypeAlias = Annotated[
    bool, typer.Option("--resume", envvar="SWAY_RESUME", show_envvar=False, help="Go on where the last run stopped.")
]
SuiteSeed: TypeAlias = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", envvar="SWAY_SEED", show_envvar=False, help="Seed of all randomness."),
]
SuiteDevice: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", envvar="SWAY_DEVICE", show_envvar=False, help="auto, cpu, cuda, cuda:1 or mps."
    ),
]
SuiteDtype: TypeAlias = Annotated[
    Dtype | None, typer.Option("--dtype", envvar="SWAY_DTYPE", show_envvar=False, help="What to compute in.")
]


def ready_to_write(path: Path | None) -> Path | None:
    """Return the place of a file to write with `~` expanded, after a check that it can be written.

    Raises:
        BadInputError: it cannot; found out now rather than after the work.
    """
    from dlm_sway.core.files import writable

    if path is None:
        return None
    expanded = path.expanduser()
    writable(expanded)
    return expanded


def places(**paths: Path | None) -> dict[str, Path]:
    """Return the places that were named, by format, after a check that each can be written.

    Raises:
        BadInputError: one cannot; found out now rather than after the work.
    """
    return {name: place for name, path in paths.items() if (place := ready_to_write(path)) is not None}
