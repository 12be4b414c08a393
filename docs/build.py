"""Writes docs/probes.md from the probes' docstrings, and the table of docs/backends.md: `python docs/build.py`."""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from dlm_sway.cli.list_probes import described, sorted_by_category
from dlm_sway.probes.registry import probes

PAGE: Final = Path(__file__).with_name("probes.md")
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
_SPECIAL: Final = re.compile(r"([|*])")


def page() -> str:
    """Return the page as the code would have it now."""
    own = {kind: cls for kind, cls in probes().items() if cls.__module__.startswith("dlm_sway.")}
    return "\n".join([_HEAD, *(_section(kind, cls) for kind, cls in sorted_by_category(own).items())])


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
    means = _attributes(inspect.getdoc(spec) or "")
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


def _attributes(doc: str) -> dict[str, str]:
    """Return what the `Attributes:` block of a docstring says of each field."""
    found: dict[str, str] = {}
    name = ""
    for line in doc.partition("Attributes:\n")[2].splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif line.startswith("     ") and name:
            found[name] += f" {line.strip()}"
    return found


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    BACKENDS.write_text(with_table(BACKENDS.read_text(encoding="utf-8")), encoding="utf-8")
