"""Checks of single values in a record: what has the wrong type is named, what is empty is left out and counted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.reading import UnusableError

ONE_OF_THEM: Final = "keep one of them"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def string(value: Any, key: str, where: str) -> str:
    """Return `value` if it is a string of whole characters.

    Raises:
        BadInputError: it is something else, or holds half a surrogate pair.
    """
    if not isinstance(value, str):
        raise BadInputError(f"`{key}` is {kind_of(value)}, not a string", where=where, remedy="put it in quotes")
    if not value.isascii() and _SURROGATE.search(value):
        raise BadInputError(f"`{key}` holds half a surrogate pair", where=where, remedy="escape both halves or none")
    return value


def filled(value: Any, key: str, where: str) -> str:
    """Return `value` if it is a string with something in it.

    Raises:
        BadInputError: no string.
        UnusableError: nothing but blanks.
    """
    text = string(value, key, where)
    if not text.strip():
        raise UnusableError("empty", f"`{key}` is empty")
    return text


def array(value: Any, key: str, where: str) -> Sequence[Any]:
    """Return `value` if it is an array.

    Raises:
        BadInputError: it is something else.
    """
    if not isinstance(value, list | tuple):
        raise BadInputError(f"`{key}` is {kind_of(value)}, not an array", where=where, remedy="put it in [ ]")
    return value


def mapping(value: Any, key: str, where: str) -> Mapping[str, Any]:
    """Return `value`, without keys that are null, if it is an object.

    Raises:
        BadInputError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise BadInputError(f"`{key}` is {kind_of(value)}, not an object", where=where, remedy="put it in { }")
    return {str(k): v for k, v in value.items() if v is not None}


def without_padding(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's row without the nulls inside its values.

    The objects of a column have one set of keys between them: a tool gets the parameters of all others, each null.
    """
    return {key: _unpadded(value) for key, value in row.items()}


def _unpadded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unpadded(inner) for key, inner in value.items() if inner is not None}
    return [_unpadded(inner) for inner in value] if isinstance(value, list | tuple) else value


class DoubledKeyError(ValueError):
    """JSON in which an object has a key twice: one of the two values would be lost without a word."""


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's keys and values, for `object_pairs_hook` of `json`.

    Raises:
        DoubledKeyError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DoubledKeyError(f"`{twice[:40]}` stands twice in one object")
    return found


def json_or_value(value: Any, key: str, where: str) -> Any:
    """Return `value`, parsed where it is JSON in a string, as tables keep what has no fixed columns.

    Raises:
        BadInputError: a string that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as exc:
        raise BadInputError(f"`{key}` is a string that is no JSON", where=where, remedy="write it as JSON") from exc


def kind_of(value: object) -> str:
    """Return what a value is, in JSON's words."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
