"""`.dlm` documents: prose, questions with answers, and preferences, each with the id of its section."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section, SectionKind
from dlm_sway.data.dlm import Part, read_parts
from dlm_sway.data.files import Line
from dlm_sway.data.paragraphs import CodeFence, joined
from dlm_sway.data.read_markdown import prose_sections
from dlm_sway.data.reading import Record, Skipped
from dlm_sway.data.registry import Reader, register

_MARKS: Final = {"instruction": ("Q", "A"), "preference": ("Prompt", "Chosen", "Rejected")}
_MARK: Final = re.compile(r"###[ \t]+(Q|A|Prompt|Chosen|Rejected)[ \t]*:?[ \t]*$")

Field: TypeAlias = tuple[str, int, str]
"""A marked piece of a body: its mark, the line of the mark, and the text under it."""


@register("dlm")
class DlmReader(Reader):
    """Reads `.dlm` documents; sections of a type that sway cannot test are counted by type."""

    suffixes: ClassVar[tuple[str, ...]] = (".dlm",)

    def read(self, name: str) -> Iterator[Record]:
        """Yield prose by heading, and questions and preferences one by one."""
        for part in read_parts(Path(name)):
            if not any(text.strip() for _, text in part.body):
                yield Skipped("empty", f"section `::{part.type}::` is empty", f"{name}:{part.at}")
            elif part.type == "prose":
                yield from _prose(part, name)
            elif part.type in _MARKS:
                yield from _marked(part, name)
            else:
                what = f"sections of type `::{part.type[:40]}::` are not tested"
                yield Skipped(f"of type ::{part.type[:40]}::", what, f"{name}:{part.at}")


def _prose(part: Part, source: str) -> Iterator[Record]:
    for record in prose_sections(iter(part.body), source, part_of=part.id):
        if isinstance(record, Section) and not record.title and part.name:
            yield replace(record, title=part.name)
        else:
            yield record


def _marked(part: Part, source: str) -> Iterator[Record]:
    wanted = _MARKS[part.type]
    found = list(_fields(part, source))
    for start in range(0, len(found), len(wanted)):
        group = found[start : start + len(wanted)]
        _require_order(group, wanted, part, source)
        values = [text for _, _, text in group]
        where = f"{source}:{group[0][1]}"
        if not all(values):
            mark = wanted[[bool(v) for v in values].index(False)]
            yield Skipped("empty", f"nothing stands under `### {mark}`", where)
        elif part.type == "preference" and values[1] == values[2]:
            yield Skipped("with equal replies", "`### Chosen` and `### Rejected` are the same", where)
        else:
            yield _section(part, values, source, group[0][1])


def _section(part: Part, values: Sequence[str], source: str, line: int) -> Section:
    kind: SectionKind = "preference" if part.type == "preference" else "instruction"
    rejected = values[2] if kind == "preference" else ""
    fields: dict[str, Any] = {"rejected": rejected, "title": part.name, "part_of": part.id}
    return Section(kind, values[0], values[1], source, line, **fields)


def _fields(part: Part, source: str) -> Iterator[Field]:
    """Yield the marked pieces of a body; a mark inside triple backticks marks nothing."""
    fence = CodeFence()
    mark, at = "", 0
    body: list[Line] = []
    for number, text in part.body:
        match = None if fence.inside(number, text) else _MARK.match(text)
        if match and match[1] in _MARKS[part.type]:
            if mark:
                yield mark, at, joined(body).strip()
            else:
                _require_nothing(body, part, source)
            mark, at, body = match[1], number, []
        else:
            body.append((number, text))
    if not mark:
        _require_nothing(body, part, source)
    yield mark, at, joined(body).strip()


def _require_nothing(body: Sequence[Line], part: Part, source: str) -> None:
    stray = next((number for number, text in body if text.strip()), None)
    if stray is not None:
        first = _MARKS[part.type][0]
        what = f"text in a `::{part.type}::` section stands before its first `### {first}`"
        raise BadInputError(what, where=f"{source}:{stray}", remedy=f"put a line `### {first}` above it")


def _require_order(group: Sequence[Field], wanted: Sequence[str], part: Part, source: str) -> None:
    for i, mark in enumerate(wanted):
        if i >= len(group):
            what = f"`### {group[-1][0]}` of a `::{part.type}::` section has no `### {mark}` behind it"
            raise BadInputError(what, where=f"{source}:{group[-1][1]}", remedy=f"add `### {mark}`")
        if group[i][0] != mark:
            what = f"`### {group[i][0]}` where `### {mark}` of a `::{part.type}::` section should stand"
            order = ", ".join(f"### {m}" for m in wanted)
            raise BadInputError(what, where=f"{source}:{group[i][1]}", remedy=f"the order is {order}")
