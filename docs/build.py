"""Writes the pages that the code knows better: `python docs/build.py`. Needs no torch.

docs/probes comes from the probes, their specs, tests and recorded examples (probe_pages.py), docs/sway.schema.json from
their specs, docs/cli.md from what `sway COMMAND --help` says, the table of docs/backends.md from what each backend
declares.
"""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any, Final

import typer

from dlm_sway.cli.app import app
from dlm_sway.report.json import dumps
from dlm_sway.suite.schema import FILE_NAME, suite_schema

SCHEMA: Final = Path(__file__).with_name(FILE_NAME)
BACKENDS: Final = Path(__file__).with_name("backends.md")
_TABLE: Final = re.compile(r"(?<=<!-- table: written by `python docs/build.py` -->\n).*?(?=<!-- end -->)", re.DOTALL)
CLI: Final = Path(__file__).with_name("cli.md")
_CLI_HEAD: Final = """\
# The commands

<!-- Written by `python docs/build.py` from what `sway COMMAND --help` says. Do not edit it by hand. -->

Every option can also be set by the environment variable beside it; the command line comes before it, and both come
before a [suite file](suite.md). `sway --install-completion` makes your shell complete commands and options.

`-` in the place of the path of one report (`--json`, `--markdown`, `--html`, `--junit`) is standard output: the report
is alone there, for a program that reads it, and what is said to a person goes to standard error.

| exit code | means |
|---|---|
| 0 | pass |
| 1 | fail: a claim does not hold, or the gate is closed |
| 2 | usage or bad input |
| 3 | error: something could not be run or answered |
| 4 | inconclusive: too little was decided |
| 130 | interrupted |
"""
_SPECIAL: Final = re.compile(r"([|*])")


def probe_pages() -> dict[Path, str]:
    """Return the pages of docs/probes as the code would have them now."""
    found: dict[Path, str] = runpy.run_path(str(Path(__file__).with_name("probe_pages.py")))["pages"]()
    return found


def cli() -> str:
    """Return the page of commands as they are now."""
    group: Any = typer.main.get_command(app)
    return "\n".join(
        [_CLI_HEAD, *(part for name in group.commands for part in _command(f"sway {name}", group.commands[name]))]
    )


def _command(name: str, command: Any) -> list[str]:
    if hasattr(command, "commands"):
        inside = [part for sub, each in command.commands.items() for part in _command(f"{name} {sub}", each)]
        return [f"## `{name}`", "", _flat(command.help), "", *inside]
    level = "##" if name.count(" ") == 1 else "###"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join([name, *(_word(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [f"| {_names(p)} | {_env(p)} | {_plain(_flat(p.help))} |" for p in (*arguments, *options)]
    table = ["| | environment | means |", "|---|---|---|", *rows, ""] if rows else []
    return [f"{level} `{name}`", "", _plain(_flat(command.help)), "", f"    {usage}", "", *table]


def _word(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_word(parameter)}`"
    names = " / ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {parameter.metavar or 'NAME'}"
    return f"`{names}{value}`"


def _env(parameter: Any) -> str:
    return f"`{parameter.envvar}`" if getattr(parameter, "envvar", None) else ""


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


def schema() -> str:
    """Return the schema of suite files as the code would have it now."""
    return dumps(suite_schema(own_only=True))


def with_table(text: str) -> str:
    """Return the page about backends with the table as the code would have it now."""
    from dlm_sway.backends.capabilities import COLUMNS, table

    head = [f"| kind | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    rows = [f"| `{kind}` | {' | '.join(found[c] for c in COLUMNS)} |" for kind, found in table().items()]
    return _TABLE.sub("\n".join(["", *head, *rows, "", ""]), text)


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


if __name__ == "__main__":
    for path, text in probe_pages().items():
        path.write_text(text, encoding="utf-8")
    CLI.write_text(cli(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
    BACKENDS.write_text(with_table(BACKENDS.read_text(encoding="utf-8")), encoding="utf-8")
