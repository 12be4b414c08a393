"""`sway schema`: the JSON Schema of suite files."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of suite files, with every probe that is installed; editors complete and check with it."""
    from dlm_sway.report.json import dumps
    from dlm_sway.suite.schema import suite_schema

    typer.echo(dumps(suite_schema()), nl=False)
