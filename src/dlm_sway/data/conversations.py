"""Conversations as chat formats and ShareGPT write them, made the same: roles, text, tool calls, tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Message
from dlm_sway.data.reading import UnusableError
from dlm_sway.data.values import array, filled, json_or_value, kind_of, mapping, string

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "call",
    "tool_call": "call",
}

REASONING: Final = ("reasoning_content", "reasoning", "thinking")
"""Keys under which chat templates look for what an assistant thought before its words."""


def turns(value: Any, key: str, where: str) -> tuple[Message, ...]:
    """Return a conversation with the roles system, user, assistant and tool.

    A turn is `{role, content}` or ShareGPT's `{from, value}`. Content is a string or parts of type text. Calls are
    `tool_calls`, `function_call`, or a ShareGPT turn from `function_call`. A turn with `weight: 0` (OpenAI) or
    `train: false` (Axolotl) was left out of the loss, and keeps the weight. Reasoning of the assistant stays under its
    key, for chat templates.

    Raises:
        BadInputError: no array of turns, an unknown role, a value of the wrong type, a call without a name.
        UnusableError: no turn at all, a turn without words, or content that is no text.
    """
    found = tuple(_turn(turn, f"{key}[{i}]", where) for i, turn in enumerate(array(value, key, where)))
    if not found:
        raise UnusableError("empty", f"`{key}` holds no turn")
    return found


def tool_list(value: Any, key: str, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tools offered in a conversation: an array of objects, or the JSON of one in a string.

    Raises:
        BadInputError: it is something else.
    """
    parsed = json_or_value(value, key, where) if value else []
    return tuple(mapping(tool, f"{key}[{i}]", where) for i, tool in enumerate(array(parsed, key, where)))


def system_beside(row: Mapping[str, Any], where: str) -> str:
    """Return the system prompt that stands beside a record's turns, as ShareGPT and Alpaca have it; or nothing."""
    value = row.get("system")
    return string(value, "system", where) if isinstance(value, str) and value.strip() else ""


def replies(messages: Sequence[Message]) -> list[int]:
    """Return the places of the turns that the model learned: those of the assistant, but for a weight of 0."""
    return [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]


def n_reasoned(messages: Sequence[Message]) -> int:
    """Return how many of the replies that the model learned hold reasoning beside their words."""
    return sum(any(key in messages[i] for key in REASONING) for i in replies(messages))


def as_prompt(messages: Sequence[Message]) -> str:
    """Return what stands before a reply as one text.

    A single request, and a system prompt before it, are given as they are, so that a chat template renders them as in
    training. Of a longer conversation the earlier turns are written out with their roles.
    """
    system = "\n\n".join(str(m["content"]) for m in messages if m["role"] == "system")
    rest = [m for m in messages if m["role"] != "system"]
    if len(rest) == 1 and rest[0]["role"] == "user":
        body = str(rest[0]["content"])
    else:
        body = "\n".join(f"{str(m['role']).capitalize()}: {as_text(m)}" for m in rest)
    return f"{system}\n\n{body}" if system and body else system or body


def as_text(message: Message) -> str:
    """Return a turn's words, else its calls as JSON."""
    import json

    content = str(message.get("content") or "")
    calls = message.get("tool_calls") or ()
    said = "\n".join(json.dumps(dict(call), ensure_ascii=False) for call in calls)
    return said if said and not content.strip() else content


def _turn(raw: Any, key: str, where: str) -> Message:
    turn = mapping(raw, key, where)
    name = turn.get("role", turn.get("from"))
    if name is None:
        raise BadInputError(f"`{key}` has no `role`", where=where, remedy="a turn holds `role` and `content`")
    role = _ROLES.get(string(name, f"{key}.role", where).strip().lower())
    if role is None:
        known = "system, user, assistant and tool"
        raise BadInputError(f"`{key}` is by the unknown role {name[:40]!r}", where=where, remedy=f"roles are {known}")
    content = _content(turn.get("content", turn.get("value")), key, where)
    masked = {"weight": 0} if turn.get("weight") == 0 or turn.get("train") is False else {}
    thought = {k: turn[k] for k in REASONING if isinstance(turn.get(k), str) and turn[k].strip()}
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls([content], key, where), **thought, **masked}
    calls = _calls(_raw_calls(turn, key, where), key, where)
    if not content.strip() and not calls and role != "tool":  # a tool may well answer nothing
        raise UnusableError("empty", f"`{key}` is empty")
    extra = {"tool_calls": calls} if calls else {}
    if role == "tool" and isinstance(turn.get("name"), str):
        extra["name"] = turn["name"]
    return {"role": role, "content": content, **extra, **(thought | masked if role == "assistant" else {})}


def _content(value: Any, key: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return string(value, f"{key}.content", where)
    if isinstance(value, Mapping):  # a call or a tool's answer that was not put in a string
        import json

        return json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, list | tuple):
        what = f"`{key}.content` is {kind_of(value)}, not a string"
        raise BadInputError(what, where=where, remedy="put it in quotes")
    parts = [mapping(part, f"{key}.content", where) for part in value]
    if any("text" not in part for part in parts):
        raise UnusableError("with content that is no text", f"`{key}` holds more than text", "sway tests text alone")
    return "".join(string(part["text"], f"{key}.content", where) for part in parts)


def _raw_calls(turn: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    if "tool_calls" in turn:
        return array(json_or_value(turn["tool_calls"], f"{key}.tool_calls", where), f"{key}.tool_calls", where)
    return [turn["function_call"]] if "function_call" in turn else []


def _calls(raw: Sequence[Any], key: str, where: str) -> tuple[dict[str, Any], ...]:
    return tuple(_call(call, f"{key}.tool_calls", where) for call in raw)


def _call(raw: Any, key: str, where: str) -> dict[str, Any]:
    call = mapping(json_or_value(raw, key, where), key, where)
    call = mapping(call["function"], key, where) if "function" in call else call
    if "name" not in call:
        raise BadInputError(f"a call in `{key}` has no `name`", where=where, remedy="a call holds name and arguments")
    arguments = json_or_value(call.get("arguments") or {}, f"{key}.arguments", where)
    mapping(arguments, f"{key}.arguments", where)
    # As they are: an argument that is null was given as null.
    return {"name": filled(call["name"], f"{key}.name", where), "arguments": dict(arguments)}
