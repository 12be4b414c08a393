"""`sway diff`: a suite on two adapters, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlm_sway.cli.compare import Alpha, FailOnRegression, show
from dlm_sway.cli.options import (
    BatchTokens,
    JsonPath,
    Limit,
    MarkdownPath,
    Only,
    Quiet,
    Skip,
    SuiteDevice,
    SuiteDraws,
    SuiteDtype,
    SuiteFile,
    SuiteSeed,
    option,
)
from dlm_sway.cli.outputs import places, read_by
from dlm_sway.cli.run import prepared, ran, suite_words


def diff(
    spec: SuiteFile,
    *,
    a: Annotated[Path, option("--a", metavar="DIR", help="The adapter compared with.")],
    b: Annotated[Path, option("--b", metavar="DIR", help="The adapter in question.")],
    fail_on_regression: FailOnRegression = False,
    alpha: Alpha = 0.05,
    only: Only = [],  # noqa: B006 (typer copies it)
    skip: Skip = [],  # noqa: B006
    limit: Limit = None,
    n_draws: SuiteDraws = None,
    json_path: JsonPath = None,
    markdown: MarkdownPath = None,
    device: SuiteDevice = None,
    dtype: SuiteDtype = None,
    seed: SuiteSeed = None,
    batch_tokens: BatchTokens = None,
    quiet: Quiet = False,
) -> None:
    """Run a suite on two adapters and compare what it finds.

    The suite's own adapter is not read, and the base is loaded once for
    both. What earlier runs scored of either adapter is used, so comparing
    many with one costs that one only once.
    """
    said = suite_words(locals())

    from dlm_sway.backends.one_base import OneBase
    from dlm_sway.suite.compare import compare
    from dlm_sway.suite.other_adapter import with_adapter

    suite, settings = prepared(spec, **said, cache=True)
    wanted = places(reads=read_by(suite), adapters=[a, b], json=json_path, markdown=markdown)
    suites = [with_adapter(suite, folder) for folder in (a, b)]
    with OneBase() as bases:
        results = [ran(each, settings, beside=None, resume=False, quiet=quiet, bases=bases) for each in suites]
    found = compare(*results, alpha=alpha)
    show(found, json_path=wanted.get("json"), markdown=wanted.get("markdown"))
    raise typer.Exit(int(found.gate()) if fail_on_regression else 0)
