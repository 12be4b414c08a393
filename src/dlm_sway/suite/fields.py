"""What a field of a probe's spec holds: texts, cases, a path. It decides what `{data: NAME}` becomes there."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, Union

from pydantic import BaseModel

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.choose import as_text_item, section_items
from dlm_sway.data.readers import every_section, read_items
from dlm_sway.engine.ask import TextItem

Holds: TypeAlias = Literal["items", "sections", "texts", "cases", "path", "word", "other"]
FROM_DATA: Final = ("items", "sections", "texts", "cases")
"""What a data file can fill."""


def holds(spec_type: type[BaseModel], name: str) -> Holds:
    """Return what a field holds: items to score (or whole sections, by its name), texts, cases, a path, a word."""
    field = spec_type.model_fields.get(name)
    parts = set(_parts(field.annotation)) if field else set()
    elements = {element for part in parts if _is_list(part) for element in _elements(part)}
    if TextItem in elements:
        return "sections" if name == "sections" else "items"
    if any(isinstance(e, type) and issubclass(e, BaseModel) for e in elements):
        return "cases"
    if str in elements:
        return "texts"
    if Path in parts:
        return "path"
    return "word" if str in parts else "other"


def in_file(path: Path, what: Holds, *, called: str) -> list[Any]:
    """Return what a data file holds, in the form that a field takes.

    Args:
        path: a file as `read_items` takes it; for cases JSONL with a case on each line.
        what: what the field holds: `items`, `sections`, `texts` or `cases`.
        called: the suite's name for the data. Places in it are told by that: where the file lies on one machine is
            nothing that a result should say, or differ by.

    Raises:
        BadInputError: the file cannot be read, or a line of it is no case.
    """
    if what == "cases":
        return list(_objects(path))
    if what == "sections":
        return [_placed(item, path, called) for item in section_items(every_section(path))]
    items = read_items(path)
    if what == "texts":
        return [item.prompt or item.completion for item in items]
    return [_placed(as_text_item(item), path, called) for item in items]


def _placed(item: TextItem, path: Path, called: str) -> TextItem:
    place = item.cluster.removeprefix(str(path))
    return item if place == item.cluster else replace(item, cluster=called + place)


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as e:
        raise BadInputError(
            f"cannot be read: {e}", where=path, remedy="give a JSONL file, a case on each line"
        ) from None
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise BadInputError("holds no case", where=path, remedy="put a JSON object on each line")
    for number, line in filled:
        try:
            case = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise BadInputError(
                f"is no JSON ({e})", where=f"{path}:{number}", remedy="put a case on each line"
            ) from None
        if not isinstance(case, dict):
            raise BadInputError("is no JSON object", where=f"{path}:{number}", remedy="put a case on each line")
        yield case


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a type."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _parts(typing.get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _is_list(part: Any) -> bool:
    return typing.get_origin(part) in (tuple, list)


def _elements(part: Any) -> Iterator[Any]:
    for element in typing.get_args(part):
        yield from _parts(element)
