"""Writes the pages that the code knows better: `python docs/build.py`. Needs no torch.

docs/probes.md comes from the docstrings of the probes, docs/sway.schema.json from their specs, docs/cli.md from what
`sway COMMAND --help` says, the table of docs/backends.md from what each backend declares.
"""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any, Final

import typer
from pydantic.fields import FieldInfo

from dlm_sway.cli.app import app
from dlm_sway.cli.list_probes import described, sorted_by_category
from dlm_sway.core.docstrings import attributes
from dlm_sway.probes.registry import probes
from dlm_sway.report.json import dumps
from dlm_sway.suite.schema import FILE_NAME, suite_schema

PAGE: Final = Path(__file__).with_name("probes.md")
SCHEMA: Final = Path(__file__).with_name(FILE_NAME)
BACKENDS: Final = Path(__file__).with_name("backends.md")
_TABLE: Final = re.compile(r"(?<=<!-- table: written by `python docs/build.py` -->\n).*?(?=<!-- end -->)", re.DOTALL)
_HEAD: Final = """\
# The probes

<!-- Written by `python docs/build.py` from the docstrings of the probes. Do not edit it by hand. -->

A probe is one claim about a fine-tune. `sway check` runs `delta_kl`, `target_gain` (with `--data`) and
`external_perplexity`. `sway list-probes` prints the same as this page. [How to add one](adding-a-probe.md).

N0, N1 and N5 are [nulls](design/0003-nulls.md); maxT is [the adjustment for several tests](statistics/multiplicity.md).
Every probe also has the options `name` and `kind`.
"""
CLI: Final = Path(__file__).with_name("cli.md")
_CLI_HEAD: Final = """\
# The commands

<!-- Written by `python docs/build.py` from what `sway COMMAND --help` says. Do not edit it by hand. -->

Every option can also be set by the environment variable beside it; the command line comes before it, and both come
before a [suite file](suite.md). `sway --install-completion` makes your shell complete commands and options.

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


def page() -> str:
    """Return the page as the code would have it now."""
    own = {kind: cls for kind, cls in probes().items() if cls.__module__.startswith("dlm_sway.")}
    return "\n".join([_HEAD, *(_section(kind, cls) for kind, cls in sorted_by_category(own).items())])


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


def _section(kind: str, cls: Any) -> str:
    title = (inspect.getdoc(cls) or "").splitlines()[0]
    fields = [f"- **{name}**: {_plain(text)}" for name, text in described(cls).items()]
    head = [f"## `{kind}`", "", f"{_plain(title)} ({cls.category})", ""]
    return "\n".join([*head, *fields, "", *_options(cls.spec_type)])


def _options(spec: Any) -> list[str]:
    means = attributes(spec)
    own = {name: field for name, field in spec.model_fields.items() if name in means}
    if not own:
        return []
    rows = [f"| `{name}` | {_default(field)} | {_plain(means[name])} |" for name, field in own.items()]
    return ["| option | default | means |", "|---|---|---|", *rows, ""]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    others = [f"`{choice}`" for choice in choices if choice != value]
    shown = "empty" if value == () else f"`{list(value) if isinstance(value, tuple) else value}`"
    return f"{shown}; or {', '.join(others)}" if others else shown


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    CLI.write_text(cli(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
    BACKENDS.write_text(with_table(BACKENDS.read_text(encoding="utf-8")), encoding="utf-8")
