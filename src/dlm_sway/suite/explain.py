"""From what pydantic says to what a user can act on: the place in the file, the offending value, the word meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dlm_sway.suite.faults import Fault, Keys, did_you_mean
from dlm_sway.suite.yaml_file import Document

_UNKNOWN: Final = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_OWN: Final = re.compile(r"^(Value error, |Input )")
_KEY: Final = "[key]"  # how pydantic says that a key is wrong and not its value
_ITEM: Final = "should be a text, or a mapping with `text`, or `prompt` and `completion`"
_CUT: Final = 60


def explained(error: ValidationError, model: type[BaseModel], document: Document, root: Keys) -> Iterator[Fault]:
    """Yield a fault for each thing that `model` refused.

    Args:
        error: what it said.
        model: what was validated.
        document: the file.
        root: the path in the file of what was validated.
    """
    schema = model.model_json_schema()
    details = error.errors(include_url=False)
    if model.model_config.get("hide_input_in_errors"):  # a key may stand there, and must not be shown
        details = [{**detail, "input": ()} for detail in details]
    for detail in details:
        if not _follows(detail, details):
            yield _fault(detail, schema, document, root)


def _follows(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Return whether a list is too short only because something in it is wrong."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(d["loc"][: len(loc)] == loc and d is not detail for d in details)


def _fault(detail: ErrorDetails, schema: Mapping[str, Any], document: Document, root: Keys) -> Fault:
    loc = tuple(part for part in detail["loc"] if part != _KEY)
    path = (*root, *loc)
    name = f"`{loc[-1]}`" if loc else "this"
    if detail["type"] in _UNKNOWN:
        known = sorted(known_keys(schema, loc[:-1]))
        return Fault(document.place(path, of_key=True), f"unknown key {name}", did_you_mean(loc[-1], known))
    if detail["type"] == "missing":
        return Fault(document.place(path[:-1]), f"{name} is missing")
    message = _ITEM if "TextItem" in detail["msg"] else _OWN.sub("", detail["msg"])
    value = shown(detail["input"])
    what = f"{_at(loc)}{message}" + (f", and is {value}" if value and value not in message else "")
    return Fault(document.place(path, of_key=_KEY in detail["loc"]), what, _nearest(detail))


def shown(value: Any) -> str:
    """Return an offending value as the user wrote it, or nothing where it is too large to show."""
    if isinstance(value, Mapping | list | tuple | set):
        return {dict: "a mapping", list: "a list"}.get(type(value), "")
    text = {True: "true", False: "false", None: "empty"}.get(value) if isinstance(value, bool | None) else None
    text = text or (repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= _CUT else f"{text[: _CUT - 1]}…"


def known_keys(schema: Mapping[str, Any], loc: Keys) -> set[str]:
    """Return the keys that a JSON schema knows at `loc`, over all alternatives."""
    at = _expanded(schema, schema)
    for part in loc:
        at = [new for node in at for child in _children(node, part) for new in _expanded(child, schema)] or at
    return {key for node in at for key in node.get("properties", {})}


def _expanded(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in node:
        return _expanded(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    branches = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    return [node, *(new for branch in branches for new in _expanded(branch, schema))]


def _children(node: Mapping[str, Any], part: str | int) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, int) and "items" in node:
        yield node["items"]
    elif part in node.get("properties", {}):
        yield node["properties"][part]


def _at(loc: Keys) -> str:
    return f"`{'.'.join(map(str, loc))}`: " if loc else ""


def _nearest(detail: ErrorDetails) -> str:
    """Return the choice that was meant, where there are choices."""
    choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    return did_you_mean(detail["input"], choices) if choices else ""
