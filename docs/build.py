"""Writes the pages that the code knows better: `python docs/build.py`. Needs no torch.

docs/probes.md comes from the docstrings of the probes, docs/sway.schema.json from their specs.
"""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from dlm_sway.cli.list_probes import described, sorted_by_category
from dlm_sway.core.docstrings import attributes
from dlm_sway.probes.registry import probes
from dlm_sway.report.json import dumps
from dlm_sway.suite.schema import FILE_NAME, suite_schema

PAGE: Final = Path(__file__).with_name("probes.md")
SCHEMA: Final = Path(__file__).with_name(FILE_NAME)
_HEAD: Final = """\
# The probes

<!-- Written by `python docs/build.py` from the docstrings of the probes. Do not edit it by hand. -->

A probe is one claim about a fine-tune. `sway check` runs `delta_kl`, `target_gain` (with `--data`) and
`external_perplexity`. `sway list-probes` prints the same as this page. [How to add one](adding-a-probe.md).

N0, N1 and N5 are [nulls](design/0003-nulls.md); maxT is [the adjustment for several tests](statistics/multiplicity.md).
Every probe also has the options `name` and `kind`.
"""
_SPECIAL: Final = re.compile(r"([|*])")


def page() -> str:
    """Return the page as the code would have it now."""
    own = {kind: cls for kind, cls in probes().items() if cls.__module__.startswith("dlm_sway.")}
    return "\n".join([_HEAD, *(_section(kind, cls) for kind, cls in sorted_by_category(own).items())])


def schema() -> str:
    """Return the schema of suite files as the code would have it now."""
    return dumps(suite_schema(own_only=True))


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
    SCHEMA.write_text(schema(), encoding="utf-8")
