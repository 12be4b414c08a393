"""`sway run`: what the probes of a suite find."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dlm_sway.cli.options import (
    AllowCustom,
    BatchTokens,
    Dtype,
    Fast,
    HtmlPath,
    JsonPath,
    JunitPath,
    Limit,
    MarkdownPath,
    Only,
    Quiet,
    Skip,
    SuiteCache,
    SuiteDevice,
    SuiteDraws,
    SuiteDtype,
    SuiteFile,
    SuiteResume,
    SuiteSeed,
    TracePath,
    Weights,
    given,
    option,
)
from dlm_sway.cli.outputs import first_file, places, read_by, ready_to_write
from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from dlm_sway.backends.one_base import OneBase
    from dlm_sway.core.result import SuiteResult
    from dlm_sway.suite.settings import Settings
    from dlm_sway.suite.spec import Suite


_OF_SUITE: Final = (
    *("only", "skip", "limit", "n_draws", "fast", "weights", "device", "dtype", "seed", "batch_tokens"),
    *("cache", "resume", "trace", "allow_custom"),
)
_WRITTEN: Final = ("json_path", "markdown", "html", "junit", "trace")


def run(
    ctx: typer.Context,
    spec: SuiteFile,
    *,
    only: Only = [],  # noqa: B006 (typer copies it)
    skip: Skip = [],  # noqa: B006
    limit: Limit = None,
    n_draws: SuiteDraws = None,
    fast: Fast = False,
    weights: Weights = None,
    dry_run: Annotated[
        bool,
        option("--dry-run", help="Say what it would cost, and end."),
    ] = False,
    json_path: JsonPath = None,
    markdown: MarkdownPath = None,
    html: HtmlPath = None,
    junit: JunitPath = None,
    device: SuiteDevice = None,
    dtype: SuiteDtype = None,
    seed: SuiteSeed = None,
    batch_tokens: BatchTokens = None,
    cache: SuiteCache = False,
    resume: SuiteResume = False,
    trace: TracePath = None,
    allow_custom: AllowCustom = False,
    quiet: Quiet = False,
) -> None:
    """Run the probes of a suite and report what they found.

    What is not given here is as the suite says. Every option can also be
    set by the environment: --only is SWAY_ONLY. A run that was stopped goes
    on with --resume; what it had scored is not scored again.
    """
    said = suite_words(locals())
    if dry_run and (names := given(ctx, _WRITTEN)):
        what = f"nothing is run with --dry-run, so there is nothing to write for {', '.join(names)}"
        raise BadInputError(what, remedy="leave out one of them")

    from dlm_sway.cli.deliver import deliver_reports
    from dlm_sway.report.suite_terminal import print_suite

    suite, settings = prepared(spec, **said)
    if dry_run:
        show_estimate(suite, settings)
        raise typer.Exit
    files = {"json": json_path, "markdown": markdown, "html": html, "junit": junit}
    wanted = wanted_of(suite, files, trace=settings.trace)
    result = ran(suite, settings, beside=first_file(wanted), resume=resume, quiet=quiet)
    deliver_reports(result, wanted, lambda console: print_suite(result, console))
    raise typer.Exit(exit_code(result))


def suite_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `prepared` takes of a command's own arguments, which all commands of suites call the same.

    Args:
        said: `locals()` of the command, before it has others.
    """
    return {name: said[name] for name in _OF_SUITE if name in said}


def wanted_of(suite: Suite, files: Mapping[str, Path | None], *, trace: Path | None = None) -> dict[str, Path]:
    """Return the places of the reports that were named, by format.

    Args:
        suite: what will be read.
        files: the place of each report, or None.
        trace: what else is written.

    Raises:
        BadInputError: one cannot be written, two are the same, or one is what the suite reads.
    """
    found = places(reads=read_by(suite), adapters=[suite.model.adapter], **files, trace=trace)
    return {name: found[name] for name in files if name in found}


def prepared(
    spec: Path,
    *,
    only: list[str],
    skip: list[str],
    dtype: Dtype | None,
    weights: str | None = None,
    trace: Path | None = None,
    cache: bool = False,
    resume: bool = False,
    **words: Any,
) -> tuple[Suite, Settings]:
    """Return the suite and how it is to be run, both found usable before torch is imported.

    Args:
        spec: the suite's file.
        only: probes that run.
        skip: probes that do not.
        dtype: what to compute in.
        weights: what a category counts in the score, as it was written.
        trace: file that gets a JSON line a pass.
        cache: whether what earlier runs left is used.
        resume: likewise.
        **words: further fields of `Settings`.

    Raises:
        BadInputError: what cannot be used, where, and how to mend it.
    """
    from dlm_sway.core.paths import results_dir
    from dlm_sway.suite.loader import load_spec
    from dlm_sway.suite.settings import Settings, read_weights

    settings = Settings(
        only=tuple(only),
        skip=tuple(skip),
        weights=read_weights(weights),
        dtype=None if dtype is None else dtype.value,
        trace=ready_to_write(trace),
        cache=results_dir(),
        reuse=cache or resume,
        **words,
    )
    suite = load_spec(spec)
    settings.draws(suite)
    return suite, settings


def ran(
    suite: Suite,
    settings: Settings,
    *,
    beside: Path | None,
    resume: bool,
    quiet: bool,
    bases: OneBase | None = None,
) -> SuiteResult:
    """Run a suite with its progress and its journal; Ctrl-C says what is kept.

    Args:
        suite: what to run.
        settings: how.
        beside: the file next to which the journal stands, or None for the cache.
        resume: whether a run that was stopped goes on, and to say so.
        quiet: show no progress.
        bases: keeps the loaded base for the next run.
    """
    from dlm_sway.cli.faults import ctrl_c_explained, pass_on_warnings
    from dlm_sway.cli.progress import show_progress
    from dlm_sway.suite.journal import Journal, journal_path
    from dlm_sway.suite.run import run as run_suite

    pass_on_warnings()
    asked = _asked(suite, settings)
    path = journal_path(suite.path, beside)
    if resume and not quiet:
        _say_what_goes_on(path, asked)
    with ctrl_c_explained(), ExitStack() as stack:
        progress = stack.enter_context(show_progress(quiet=quiet))
        journal = stack.enter_context(Journal(path, asked, progress))
        words: Any = {name: getattr(settings, name) for name in asdict(settings)}
        return run_suite(suite, progress=journal, bases=bases, **words)


def exit_code(result: SuiteResult) -> int:
    """Return the exit code that a verdict ends with, as for `sway check`."""
    from dlm_sway.suite.result import exit_code_of

    return int(exit_code_of(result.verdict))


def show_estimate(suite: Suite, settings: Settings) -> None:
    """Print what a run would cost; no model is loaded."""
    from dlm_sway.cli.console import stdout_console
    from dlm_sway.cli.gate_lines import print_estimate
    from dlm_sway.suite.estimate import estimate
    from dlm_sway.suite.run import arranged_for, env_of

    arranged = arranged_for(suite, settings)
    found = estimate(arranged.of_model, env_of(suite, settings), settings.model(suite))
    print_estimate(found, tuple(spec.name for _, spec in arranged.of_files), stdout_console())


def _asked(suite: Suite, settings: Settings) -> dict[str, Any]:
    said = {name: value for name, value in asdict(settings).items() if name not in ("cache", "reuse", "trace")}
    return {"suite": suite.sha256, **{name: list(v) if isinstance(v, tuple) else v for name, v in said.items()}}


def _say_what_goes_on(path: Path, asked: dict[str, Any]) -> None:
    from dlm_sway.cli.faults import say
    from dlm_sway.suite.journal import stopped_run

    stopped = stopped_run(path)
    if stopped is None:
        say("no run of this suite was stopped here; what earlier runs scored is used")
        return
    far = f", {stopped.done:,} of {stopped.total:,} view-tokens" if stopped.total else ""
    say(f"going on with the run of {stopped.when:%Y-%m-%d %H:%M}{far}")
    if dict(stopped.asked) != asked:
        say("the suite or the options have changed since; what still applies is used")
