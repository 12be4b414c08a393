"""Preferences in the shapes of TRL, LLaMA-Factory and OpenAI: what was asked, and the two replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Message
from dlm_sway.data.conversations import as_prompt, as_text, n_reasoned, system_beside, turns
from dlm_sway.data.reading import UnusableError
from dlm_sway.data.values import filled, kind_of, mapping, string

CHOSEN: Final = ("chosen", "rejected")
PREFERRED: Final = ("preferred_output", "non_preferred_output")
"""OpenAI's names of the two replies; what they answer stands in `input`."""
_Both: TypeAlias = tuple[tuple[Message, ...], tuple[Message, ...]]
_ASKING: Final = ("prompt", "messages", "conversations", "instruction")


def preference(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a section of which one reply was preferred.

    Each reply is a string, a turn, or turns that may repeat what they answer. It is a `prompt`, turns, or an
    `instruction` with its `input`.

    Raises:
        BadInputError: replies of two types, nothing that they answer, or a value of the wrong type.
        UnusableError: something is empty, or not to be compared.
    """
    return _compared(row, CHOSEN, where)


def preferred_output(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the same of OpenAI's shape.

    Raises:
        BadInputError: as `preference`.
        UnusableError: as `preference`.
    """
    if "input" not in row:
        raise BadInputError(
            "`input` is missing", where=where, remedy="it holds the `messages` that both outputs answer"
        )
    given = mapping(row["input"], "input", where)
    if "messages" not in given:
        raise BadInputError("`input` has no `messages`", where=where, remedy="they are what both outputs answer")
    return _compared({"messages": given["messages"]} | {key: row[key] for key in PREFERRED}, PREFERRED, where)


def _compared(row: Mapping[str, Any], keys: tuple[str, str], where: str) -> dict[str, Any]:
    # A turn is a conversation of one.
    chosen, rejected = ([row[key]] if isinstance(row[key], Mapping) else row[key] for key in keys)
    if type(chosen) is not type(rejected):
        what = f"`{keys[0]}` is {kind_of(row[keys[0]])} and `{keys[1]}` {kind_of(row[keys[1]])}"
        raise BadInputError(what, where=where, remedy="give both as strings, or both as messages")
    if isinstance(chosen, list):
        both = _conversations(chosen, rejected, keys, where)
        before, n = as_prompt(both[0][:-1]), sum(n_reasoned(said[-1:]) for said in both)
        good, bad = (as_text(said[-1]) for said in both)
    else:
        before, n = "", 0
        good, bad = filled(chosen, keys[0], where), filled(rejected, keys[1], where)
    asked = before or _asked(row, where)
    if good == bad:
        what = f"`{keys[0]}` and `{keys[1]}` are the same"
        raise UnusableError("with equal replies", what, "nothing is preferred here")
    return {"kind": "preference", "prompt": asked, "completion": good, "rejected": bad, "n_reasoned": n}


def _conversations(good: Sequence[Any], bad: Sequence[Any], keys: tuple[str, str], where: str) -> _Both:
    """Return both conversations, which end with the replies and may hold nothing else."""
    both = turns(good, keys[0], where), turns(bad, keys[1], where)
    for key, said in zip(keys, both, strict=True):
        if said[-1]["role"] != "assistant":
            raise UnusableError("without assistant turn", f"`{key}` does not end with an assistant turn")
    if both[0][:-1] != both[1][:-1]:
        raise UnusableError("with unlike requests", f"`{keys[0]}` and `{keys[1]}` answer different requests")
    return both


def _asked(row: Mapping[str, Any], where: str) -> str:
    """Return what stands beside both replies and is answered by them."""
    key = next((key for key in _ASKING if key in row), None)
    if key is None:
        what = "`prompt` is missing"
        remedy = "a pair needs what it answers: a `prompt`, `messages`, `conversations` or an `instruction`"
        raise BadInputError(what, where=where, remedy=remedy)
    system = system_beside(row, where)
    if isinstance(row[key], list) or key in ("messages", "conversations"):
        asked = _turns_asked(turns(row[key], key, where), key, system)
    else:
        more = string(row.get("input", ""), "input", where) if key == "instruction" else ""
        parts = (string(row[key], key, where), more)
        asked = "\n\n".join(part for part in (system, *parts) if part.strip()) if any(map(str.strip, parts)) else ""
    if not asked.strip():
        raise UnusableError("empty", f"`{key}` is empty")
    return asked


def _turns_asked(messages: tuple[Message, ...], key: str, system: str) -> str:
    if messages[-1]["role"] == "assistant":
        what = f"`{key}` ends with an assistant turn, so the two replies answer nothing"
        raise UnusableError("without a request", what, "end it with what they answer")
    if system and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": system}, *messages)
    return as_prompt(messages)
