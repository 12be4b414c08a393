"""`sway check`: is this adapter sound, applied, learned, on target, general and harmless?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlm_sway.cli.options import (
    Adapter,
    Backend,
    Base,
    BatchTokens,
    Cache,
    Data,
    Device,
    Draws,
    Dtype,
    DtypeOption,
    HeldOut,
    HtmlPath,
    JsonPath,
    JunitPath,
    MarkdownPath,
    Quick,
    Quiet,
    Resume,
    Seed,
    TracePath,
    is_given,
)
from dlm_sway.cli.outputs import places
from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from dlm_sway.suite.result import CheckResult


def check(
    ctx: typer.Context,
    adapter: Adapter,
    *,
    base: Base = None,
    backend: Backend = "hf",
    data: Data = None,
    held_out: HeldOut = None,
    json_path: JsonPath = None,
    markdown: MarkdownPath = None,
    html: HtmlPath = None,
    junit: JunitPath = None,
    n_draws: Draws = 39,
    quick: Quick = False,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.AUTO,
    seed: Seed = 0,
    batch_tokens: BatchTokens = None,
    cache: Cache = False,
    resume: Resume = False,
    trace: TracePath = None,
    quiet: Quiet = False,
) -> None:
    """Answer six questions about an adapter: is it sound, applied, learned, on target, general, harmless?

    FILE is text, Markdown, JSON, JSONL, Parquet, a .dlm document or a data
    set: texts, prompts with completions, instructions, conversations, tool
    calls or preferences. A key cluster keeps records of one document together.

    The environment can set every option: --held-out is SWAY_HELD_OUT.
    """
    adapter, data, held_out = adapter.expanduser(), _expanded(data), _expanded(held_out)
    validate(adapter, data=data, held_out=held_out, n_draws=n_draws)
    from dlm_sway.suite.request import QUICK_DRAWS

    if quick and n_draws != QUICK_DRAWS and is_given(ctx, "n_draws"):
        what = f"--quick takes {QUICK_DRAWS} draws, and --draws asks for {n_draws}"
        raise BadInputError(what, remedy="leave out one of them")
    files = {"json": json_path, "markdown": markdown, "html": html, "junit": junit, "trace": trace}
    wanted = places(reads=[data, held_out, base], adapters=[adapter], **files)

    from dlm_sway.cli.faults import ctrl_c_explained, pass_on_warnings
    from dlm_sway.cli.progress import show_progress
    from dlm_sway.core.paths import results_dir
    from dlm_sway.suite.check import check as run_check

    pass_on_warnings()
    with ctrl_c_explained(), show_progress(quiet=quiet) as progress:
        result = run_check(
            adapter,
            base=base,
            backend=backend,
            data=data,
            held_out=held_out,
            n_draws=n_draws,
            device=device,
            dtype=dtype.value,
            seed=seed,
            quick=quick,
            batch_tokens=batch_tokens,
            cache=results_dir() if cache or resume else None,
            trace=wanted.get("trace"),
            progress=progress,
        )
    finish(result, wanted)


def validate(adapter: Path, *, data: Path | None, held_out: Path | None, n_draws: int) -> None:
    """Return if the inputs can be used, found out in the order of what a user names, before torch is imported.

    Raises:
        BadInputError: what cannot be used, where, and how to mend it.
    """
    from dlm_sway.adapters.config import load_config
    from dlm_sway.data.readers import read_sections
    from dlm_sway.stats.power import require_draws

    require_draws(n_draws)
    load_config(adapter)
    for path in (data, held_out):
        if path is not None:
            for _ in read_sections(path):
                pass
    if data is not None and held_out is not None and _same(data, held_out):
        what = "--held-out is the same file as --data, so nothing in it was held out"
        raise BadInputError(what, where=held_out, remedy="give text of the same kind that was not trained on")


def finish(result: CheckResult, files: Mapping[str, Path]) -> None:
    """Write each report that has a path, print the report and end with the verdict's exit code."""
    from dlm_sway.cli.deliver import deliver_reports
    from dlm_sway.report.terminal import print_check

    deliver_reports(result, files, lambda console: print_check(result, console))
    raise typer.Exit(int(result.exit_code))


def _same(data: Path, held_out: Path) -> bool:
    return data == held_out or (data.exists() and held_out.exists() and data.samefile(held_out))


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()
