"""JSON files that came with an adapter or a model, read as data that somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import AdapterError

_MAX_BYTES: Final = 256 * 1024 * 1024


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that `path` holds.

    Raises:
        AdapterError: the file cannot be read, is over 256 MiB, is not UTF-8, not JSON, or holds no object.
    """
    text = _read_text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise AdapterError(
            f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            where=path,
            remedy="save or download the file again",
        ) from None
    except RecursionError:
        raise AdapterError("JSON nested too deeply", where=path, remedy="save or download the file again") from None
    if not isinstance(value, dict):
        raise AdapterError(f"holds a JSON {_kind(value)}, not an object", where=path, remedy="save the file again")
    return value


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AdapterError("over 256 MiB, too large for a JSON file", where=path, remedy="download the file again")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AdapterError(
            f"not UTF-8 text (byte {error.start})", where=path, remedy="save the file again as UTF-8"
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AdapterError(f"cannot be read ({reason})", where=path, remedy="check its permissions") from None


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), "value")
