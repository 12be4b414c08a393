"""One line of JSONL: which shapes are understood, and what to say about the others."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any, Final

from dlm_sway.core.errors import BadInputError

_KEYS: Final = ("text", "prompt", "completion", "cluster")
_SHAPES: Final = "a line holds `text`, or `prompt` and `completion`, and optionally `cluster`"
# What other tools call the same things.
_ALSO_CALLED: Final = {
    "content": "text",
    "document": "text",
    "instruction": "prompt",
    "input": "prompt",
    "question": "prompt",
    "output": "completion",
    "response": "completion",
    "answer": "completion",
    "target": "completion",
    "group": "cluster",
}


@dataclass(frozen=True, slots=True)
class Record:
    """What one line says; `prompt` is empty where the line holds `text`, `cluster` None where it names none."""

    prompt: str
    completion: str
    cluster: str | None


def is_object(line: str) -> bool:
    """Return whether the line is a JSON object, as a text that merely starts with a brace is not."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def parse_line(line: str, *, where: str) -> Record:
    """Return what one line of JSONL says.

    Args:
        line: the text of the line; not blank.
        where: `file:line`, for the error.

    Raises:
        BadInputError: no JSON, no object, keys of no known shape, a value of the wrong type, or nothing to score.
    """
    found = _object(line, where)
    _refuse_misspelt(found, where)
    cluster = _cluster(found, where)
    if "text" in found:
        if "prompt" in found or "completion" in found:
            raise BadInputError("holds both `text` and `prompt`/`completion`", where=where, remedy="keep one of them")
        return Record("", _scored(found, "text", where), cluster)
    missing = [key for key in ("prompt", "completion") if key not in found]
    if missing:
        raise BadInputError(_unknown_shape(found, missing), where=where, remedy=_suggest(found, missing))
    return Record(_string(found, "prompt", where), _scored(found, "completion", where), cluster)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except RecursionError as exc:
        raise BadInputError("is JSON nested too deeply", where=where, remedy=_SHAPES) from exc
    except ValueError as exc:
        hint = "an array or object over several lines becomes JSONL with `jq -c '.[]' FILE`, and " + _SHAPES
        raise BadInputError(
            f"is no JSON ({exc})", where=where, remedy=hint if line.strip() in "[{" else _SHAPES
        ) from exc
    if not isinstance(found, dict):
        remedy = "put one object on each line; `jq -c '.[]' FILE` converts it" if isinstance(found, list) else _SHAPES
        raise BadInputError(f"is JSON, but {_kind(found)} and not an object", where=where, remedy=remedy)
    return found


def _refuse_misspelt(found: dict[str, Any], where: str) -> None:
    """Refuse a key that is nearly `cluster`: ignoring it would make every interval too narrow without a word."""
    near = difflib.get_close_matches("cluster", [key for key in found if key not in _KEYS], n=1, cutoff=0.8)
    if near and "cluster" not in found:
        raise BadInputError(f"unknown key `{near[0]}`", where=where, remedy="did you mean `cluster`?")


def _cluster(found: dict[str, Any], where: str) -> str | None:
    value = found.get("cluster")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value is None else _filled(_string(found, "cluster", where), "cluster", where)


def _scored(found: dict[str, Any], key: str, where: str) -> str:
    return _filled(_string(found, key, where), key, where)


def _filled(value: str, key: str, where: str) -> str:
    if not value.strip():
        remedy = "give it a name or leave the key out" if key == "cluster" else "fill it or take the line out"
        raise BadInputError(f"`{key}` is empty", where=where, remedy=remedy)
    return value


def _string(found: dict[str, Any], key: str, where: str) -> str:
    value = found[key]
    if not isinstance(value, str):
        raise BadInputError(f"`{key}` is {_kind(value)}, not a string", where=where, remedy="put it in quotes")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise BadInputError(f"`{key}` holds half a surrogate pair", where=where, remedy="escape both halves or none")
    return value


def _unknown_shape(found: dict[str, Any], missing: list[str]) -> str:
    if len(missing) == 1:
        return f"`{missing[0]}` is missing"
    keys = ", ".join(f"`{key}`" for key in list(found)[:5])
    return f"has {keys + (', ...' if len(found) > 5 else '') if keys else 'no keys'}"  # noqa: PLR2004 (a readable few)


def _suggest(found: dict[str, Any], missing: list[str]) -> str:
    wanted = [*missing, *(["text"] if len(missing) > 1 else [])]
    for key in found:
        meant = _ALSO_CALLED.get(key.lower()) or next(iter(difflib.get_close_matches(key.lower(), wanted, n=1)), None)
        if meant in wanted:
            return f"did you mean `{meant}` where it says `{key}`? {_SHAPES}"
    return _SHAPES


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null")
