"""Tool calls in what a model wrote: the common ways of writing them, and those that were tried and went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

_TAGGED: Final = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_FENCED: Final = re.compile(r"```[ \t]*(?:json|tool_call|tool_code)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_ARGUMENTS: Final = ("arguments", "parameters")
_OPENINGS: Final = 64  # places where a bare call is looked for; text of brackets alone must not take long


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool.

    Attributes:
        name: of the tool; empty when it could not be read.
        arguments: by name; None when they could not be read.
    """

    name: str
    arguments: Mapping[str, Any] | None


MALFORMED: Final = Call("", None)


def calls_in(text: str) -> tuple[Call, ...]:
    """Return the calls in a text, in order; empty when it tries none.

    Read are JSON objects with a name and `arguments` or `parameters`, and arrays of them: between `<tool_call>` tags,
    else in code fences, else anywhere in the text. A tag, or JSON with a name, that cannot be read is a malformed
    call: the model tried.
    """
    tagged = [call for match in _TAGGED.finditer(text) for call in _read(match[1]) or (MALFORMED,)]
    if tagged:
        return tuple(tagged)
    fenced = [call for match in _FENCED.finditer(text) for call in _read(match[1]) or _tried(match[1])]
    return tuple(fenced) or tuple(_bare(text)) or _tried(text)


def _tried(text: str) -> tuple[Call, ...]:
    """Return a malformed call where JSON of a call was begun."""
    begun = text.lstrip()[:1] in ("{", "[") and '"name"' in text and any(f'"{key}"' in text for key in _ARGUMENTS)
    return (MALFORMED,) if begun else ()


def _read(text: str) -> tuple[Call, ...]:
    try:
        return tuple(_calls(_DECODER.decode(text.strip())))
    except (ValueError, RecursionError):
        return ()


def _bare(text: str) -> Iterator[Call]:
    """Yield calls of JSON values that stand anywhere in the text; what is inside one is not looked at again."""
    at = 0
    for _ in range(_OPENINGS):
        opening = re.compile(r"[\[{]").search(text, at)
        if opening is None:
            return
        at = opening.start() + 1
        try:
            value, at = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        yield from _calls(value)


def _calls(value: Any) -> Iterator[Call]:
    for entry in value if isinstance(value, list) else [value]:
        call = _call(entry)
        if call is not None:
            yield call


def _call(entry: Any) -> Call | None:
    if not isinstance(entry, dict):
        return None
    inner = entry.get("function")
    if isinstance(inner, dict):
        entry = inner
    name, key = entry.get("name"), next((k for k in _ARGUMENTS if k in entry), None)
    if not isinstance(name, str) or key is None:
        return None
    arguments = entry[key]
    if isinstance(arguments, str):  # some formats carry them as JSON inside a string
        try:
            arguments = _DECODER.decode(arguments)
        except (ValueError, RecursionError):
            return Call(name, None)
    return Call(name, arguments if isinstance(arguments, dict) else None)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def agreement(call: Call, gold: Call) -> float:
    """Return the share of arguments, named by either, that have the same value; 0 when the names of the tools differ.

    Case and spacing of strings are not compared, and 1 is 1.0. Without arguments on both sides it is 1.
    """
    if call.name != gold.name or call.arguments is None:
        return 0.0
    wanted = gold.arguments or {}
    names = {*call.arguments, *wanted}
    same = [n for n in names if n in call.arguments and n in wanted and _same(call.arguments[n], wanted[n])]
    return len(same) / len(names) if names else 1.0


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(_plain(a) == _plain(b))
    except RecursionError:  # what a model wrote may be nested deeper than any gold call
        return False


def _plain(value: Any) -> Any:
    """Return a value that equals another when both mean the same; a truth value is no number."""
    if isinstance(value, bool):
        return ("truth", value)
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
