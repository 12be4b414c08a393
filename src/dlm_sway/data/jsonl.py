"""One line of JSONL: from its text to a record, and what to say where it is no JSON object."""

from __future__ import annotations

import json
from typing import Any

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.reading import Record
from dlm_sway.data.shapes import OTHERS, SHAPES, section_of
from dlm_sway.data.values import ONE_OF_THEM, DoubledKeyError, kind_of, without_doubles


def is_object(line: str) -> bool:
    """Return whether the line is a JSON object, as a text that merely starts with a brace is not."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def parse_line(line: str, *, source: str, number: int) -> Record:
    """Return what one line of JSONL holds; the line is not blank.

    Raises:
        BadInputError: no JSON, no object, keys of no known shape, or a value of the wrong type.
    """
    return section_of(_object(line, f"{source}:{number}"), source=source, line=number)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line, object_pairs_hook=without_doubles)
    except DoubledKeyError as exc:
        raise BadInputError(str(exc), where=where, remedy=ONE_OF_THEM) from exc
    except RecursionError as exc:
        raise BadInputError("is JSON nested too deeply", where=where, remedy=SHAPES) from exc
    except ValueError as exc:
        hint = "an array or object over several lines is read from a file named .json; a line holds one object"
        remedy = hint if line.strip() in "[{" else f"{SHAPES}; {OTHERS}"
        raise BadInputError(f"is no JSON ({exc})", where=where, remedy=remedy) from exc
    if not isinstance(found, dict):
        remedy = "put one object on each line; `jq -c '.[]' FILE` converts it" if isinstance(found, list) else SHAPES
        raise BadInputError(f"is JSON, but {kind_of(found)} and not an object", where=where, remedy=remedy)
    return found
