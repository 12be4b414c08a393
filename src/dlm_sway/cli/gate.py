"""`sway gate`: does a suite, or a result of one, pass?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from dlm_sway.cli.options import (
    AllowCustom,
    BatchTokens,
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
    SuiteResume,
    SuiteSeed,
    TracePath,
    Weights,
    given,
    option,
)
from dlm_sway.cli.outputs import first_file, places
from dlm_sway.cli.run import prepared, ran, suite_words, wanted_of

_RESULT: Final = ".json"
_OF_RESULT: Final = frozenset({"weights"})  # what a run and the judgement of a result both follow

Threshold: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="X", min=0, max=1, envvar="SWAY_THRESHOLD", show_envvar=False, help="Lowest score; default 0.6."
    ),
]
Coverage: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="X", min=0, max=1, envvar="SWAY_COVERAGE", show_envvar=False, help="Lowest share decided; 0.6."
    ),
]


def gate(
    ctx: typer.Context,
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A suite file, or the JSON that a run of one wrote.")],
    *,
    threshold: Threshold = None,
    coverage: Coverage = None,
    strict: Annotated[bool, option("--strict", help="Close on inconclusive, too.")] = False,
    only: Only = [],  # noqa: B006 (typer copies it)
    skip: Skip = [],  # noqa: B006
    limit: Limit = None,
    n_draws: SuiteDraws = None,
    fast: Fast = False,
    weights: Weights = None,
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
    """Run a suite and say what broke the gate; end with 0 only when nothing did.

    It closes on a FAIL, on an ERROR, on a score under --threshold and on too
    little that was decided. Of a result, SPEC is the JSON file: its verdicts
    are judged again, and nothing is run. 1: failed, 3: an error, 4: undecided.
    """
    said = suite_words(locals())
    is_result = spec.suffix.lower() == _RESULT
    if is_result:
        _require_no_run_asked(ctx, spec, said)

    from dlm_sway.cli.deliver import deliver_reports
    from dlm_sway.cli.gate_lines import print_gate
    from dlm_sway.suite.gate import gate as judge
    from dlm_sway.suite.read import read_suite
    from dlm_sway.suite.settings import read_weights

    files = {"json": json_path, "markdown": markdown, "html": html, "junit": junit}
    if is_result:
        wanted = places(reads=[spec], adapters=(), **files)
        result = read_suite(spec)
    else:
        suite, settings = prepared(spec, **said)
        wanted = wanted_of(suite, files, trace=settings.trace)
        result = ran(suite, settings, beside=first_file(wanted), resume=resume, quiet=quiet)
    found = judge(
        result, threshold=threshold, coverage_threshold=coverage, weights=read_weights(weights), strict=strict
    )
    deliver_reports(result, wanted, lambda console: print_gate(found, console), gate=found)
    raise typer.Exit(int(found.exit_code))


def _require_no_run_asked(ctx: typer.Context, spec: Path, said: Iterable[str]) -> None:
    """Refuse options of a run, which a result would silently not follow.

    Raises:
        BadInputError: some were given; it names them.
    """
    from dlm_sway.core.errors import BadInputError

    if names := given(ctx, set(said) - _OF_RESULT):
        what = f"nothing is run for a result, so it cannot follow {', '.join(names)}"
        remedy = "leave that out, or name the suite's file instead of its result"
        raise BadInputError(what, where=spec, remedy=remedy)
