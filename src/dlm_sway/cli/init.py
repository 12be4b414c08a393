"""`sway init`: write a suite file to begin with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from dlm_sway.cli.options import option
from dlm_sway.cli.outputs import places
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.paths import way_from

_SPEC: Final = Path("sway.yaml")


def init(
    spec: Annotated[Path, typer.Argument(metavar="[SPEC]", help="The file to write.", show_default=True)] = _SPEC,
    *,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="DIR", envvar="SWAY_ADAPTER", show_envvar=False, help="The adapter, as PEFT saves it."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="BASE", envvar="SWAY_BASE", show_envvar=False, help="Default: as the adapter records it."),
    ] = None,
    data: Annotated[
        str | None,
        option("--data", metavar="FILE", help="What it was trained on."),
    ] = None,
    held_out: Annotated[
        str | None,
        option("--held-out", metavar="FILE", help="Same kind, not trained on."),
    ] = None,
    force: Annotated[bool, option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented suite file, and its JSON Schema beside it for editors.

    Asks for what is not given, on a terminal. Paths are relative to where
    you are; in the file they are relative to it.
    """
    from dlm_sway.core.files import write_atomic
    from dlm_sway.report.json import dumps
    from dlm_sway.suite.schema import FILE_NAME, suite_schema
    from dlm_sway.suite.template import Answers, suite_text

    spec = spec.expanduser()
    if spec.exists() and not force:
        raise BadInputError("is there already", where=spec, remedy="name another file, or give --force")
    adapter = adapter or _asked("Directory of the adapter", "--adapter")
    base = base or _recorded(Path(adapter).expanduser()) or _asked("Its base (directory or Hub id)", "--base")
    data = data or _asked("A file with what it was trained on (empty for none)", None)
    if data:
        held_out = held_out or _asked("A file of the same kind that it was not trained on (empty for none)", None)
    elif held_out:
        what = "held-out text is judged beside what the adapter was trained on, and no data is named"
        raise BadInputError(what, where=held_out, remedy="name that too, with --data")
    _require_usable(spec, data, held_out, force=force)
    answers = Answers(
        base=_placed(base, spec),
        adapter=_relative(adapter, spec),
        name=spec.parent.resolve().name or "suite",  # not `..`, where the file is named so
        data=_relative(data, spec) if data else None,
        held_out=_relative(held_out, spec) if data and held_out else None,
    )
    write_atomic(spec, suite_text(answers, file=spec))
    write_atomic(spec.with_name(FILE_NAME), dumps(suite_schema()))
    typer.echo(f"wrote {spec} and {FILE_NAME} beside it; next: sway run {shlex.quote(str(spec))}")


def _require_usable(spec: Path, data: str | None, held_out: str | None, *, force: bool) -> None:
    """Return if the files of data are there, and nothing is lost by writing the suite and its schema.

    Raises:
        BadInputError: which is not so, and how to mend it.
    """
    from dlm_sway.suite.schema import FILE_NAME, is_ours

    schema = spec.with_name(FILE_NAME)
    places(reads=[data or None, held_out or None], spec=spec, schema=schema)
    for name in (data, held_out):
        if name and not Path(name).expanduser().exists():
            raise BadInputError("no such file", where=name, remedy="check the path; it is relative to where you are")
    if schema.exists() and not force and not is_ours(schema):
        what = "is there already, and no schema that sway wrote"
        raise BadInputError(what, where=schema, remedy="move it away, or give --force")


def _asked(question: str, option: str | None) -> str:
    """Return the answer of a person; an option that must be there is named where nobody can answer."""
    if sys.stdin.isatty():
        return str(typer.prompt(question, default="" if option is None else None, show_default=False)).strip()
    if option is not None:
        raise BadInputError(f"{option} is missing, and nobody can be asked", remedy=f"give {option}")
    return ""


def _recorded(adapter: Path) -> str | None:
    from dlm_sway.adapters.config import load_config
    from dlm_sway.core.errors import AdapterError

    try:
        return load_config(adapter).base_model_name_or_path
    except AdapterError:
        return None  # it may be trained only after the suite is written


def _relative(path: str, spec: Path) -> str:
    """Return a path as the file has to write it: relative to the file."""
    there = Path(path).expanduser()
    if there.is_absolute():
        return str(there)
    return Path(way_from(spec.absolute().parent, there)).as_posix()


def _placed(base: str, spec: Path) -> str:
    """Return a base as the file has to write it; a folder as a path that no Hub id can be taken for."""
    if not Path(base).expanduser().is_dir():
        return base
    word = _relative(base, spec)
    return word if word.startswith(("/", ".", "~")) else f"./{word}"
