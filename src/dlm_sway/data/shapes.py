"""Which shapes of a record are understood, by its keys, and what to say about the others."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Message, Section, place
from dlm_sway.data.conversations import as_prompt, as_text, n_reasoned, replies, system_beside, tool_list, turns
from dlm_sway.data.preferences import CHOSEN, PREFERRED, preference, preferred_output
from dlm_sway.data.reading import Record, UnusableError
from dlm_sway.data.values import array, filled, string

Row: TypeAlias = Mapping[str, Any]

SHAPES: Final = "a line holds `text`, or `prompt` and `completion`, and optionally `cluster`"
OTHERS: Final = (
    "also understood: `instruction`, `input` and `output`; `messages`; `conversations`; "
    "`prompt`, `chosen` and `rejected`; `input`, `preferred_output` and `non_preferred_output`"
)
_KEYS: Final = ("text", "prompt", "completion", "cluster", "messages", "conversations", "chosen", "rejected")
# What other tools call the same things.
_ALSO_CALLED: Final = {
    "content": "text",
    "document": "text",
    "input": "prompt",
    "question": "prompt",
    "response": "completion",
    "answer": "completion",
    "target": "completion",
    "group": "cluster",
    "dialog": "messages",
    "dialogue": "messages",
    "conversation": "conversations",
}
_MANY: Final = 5


def section_of(row: Row, *, source: str, line: int, nth: int = 0) -> Record:
    """Return the section that a record holds, or the record as one left out.

    Args:
        row: the record's keys and values. Null values count as absent where a shape can be seen without them.
        source: the file, for provenance.
        line: its 1-based line or row.
        nth: its place in an array, where it is not the first record that starts on that line; see `Section`.

    Raises:
        BadInputError: keys of no known shape, or a value of the wrong type.
    """
    where = place(source, line, nth)
    present = {key: value for key, value in row.items() if value is not None}
    _refuse_misspelt(present, where)
    shape = shape_of(present)
    make = _MAKERS[shape] if shape else _plain
    try:
        _require_wanted(present, "kto_tag")  # LLaMA-Factory's, beside records of any shape
        fields = make(present if shape else row, where)
        return Section(source=source, line=line, nth=nth, cluster=_cluster(present, where), **fields)
    except UnusableError as fault:
        return fault.at(where)


def shape_of(row: Row) -> str | None:
    """Return the name of a record's shape as users are shown it, or None where it is none that is known."""
    return next((name for name, keys in _SHAPE_KEYS.items() if keys <= row.keys()), None)


_SHAPE_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "prompt/chosen/rejected": frozenset(CHOSEN),
    "input/preferred_output/non_preferred_output": frozenset(PREFERRED),
    "messages": frozenset({"messages"}),
    "conversations": frozenset({"conversations"}),
    "text": frozenset({"text"}),
    "prompt/completion": frozenset({"prompt", "completion"}),
    "instruction/input/output": frozenset({"instruction", "output"}),
}


def _text(row: Row, where: str) -> dict[str, Any]:
    if "prompt" in row or "completion" in row:
        raise BadInputError("holds both `text` and `prompt`/`completion`", where=where, remedy="keep one of them")
    return {"kind": "prose", "prompt": "", "completion": filled(row["text"], "text", where)}


def _pair(row: Row, where: str) -> dict[str, Any]:
    _require_wanted(row, "label")  # elsewhere a label may be anything
    if isinstance(row["prompt"], list) and isinstance(row["completion"], list):
        said = (*turns(row["prompt"], "prompt", where), *turns(row["completion"], "completion", where))
        return _chat(said, row, where)
    prompt, completion = string(row["prompt"], "prompt", where), filled(row["completion"], "completion", where)
    # A row without a prompt is a text that is scored from its beginning.
    return {"kind": "instruction" if prompt.strip() else "prose", "prompt": prompt, "completion": completion}


def _require_wanted(row: Row, mark: str) -> None:
    """Refuse what KTO was to unlearn."""
    if row.get(mark) is False:
        what = f"`{mark}` is false: training made this completion less likely"
        raise UnusableError(
            "unwanted replies", what, "give it as `rejected` beside a `chosen` reply to have it compared"
        )


def _instruction(row: Row, where: str) -> dict[str, Any]:
    asked = filled(row["instruction"], "instruction", where)
    more = string(row.get("input", ""), "input", where)
    prompt = f"{asked}\n\n{more}" if more.strip() else asked
    answer = filled(row["output"], "output", where)
    if not (system_beside(row, where) or row.get("history")):
        return {"kind": "instruction", "prompt": prompt, "completion": answer}
    said = [*_history(row, where), {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return _chat(tuple(said), row, where)


def _history(row: Row, where: str) -> Iterator[Message]:
    """Yield the earlier turns of LLaMA-Factory's Alpaca: pairs of a request and its reply, which are learned too."""
    for i, pair in enumerate(array(row.get("history", ()), "history", where)):
        both = array(pair, f"history[{i}]", where)
        if len(both) != len(_PAIR):
            what = f"`history[{i}]` holds {len(both)} texts"
            raise BadInputError(what, where=where, remedy="give pairs of a request and its reply")
        yield from ({"role": r, "content": filled(x, f"history[{i}]", where)} for r, x in zip(_PAIR, both, strict=True))


_PAIR: Final = ("user", "assistant")


def _messages(row: Row, where: str) -> dict[str, Any]:
    return _chat(turns(row["messages"], "messages", where), row, where)


def _conversations(row: Row, where: str) -> dict[str, Any]:
    return _chat(turns(row["conversations"], "conversations", where), row, where)


def _chat(messages: tuple[Message, ...], row: Row, where: str) -> dict[str, Any]:
    """A conversation; a tool section where tools are offered or called."""
    # OpenAI's `functions` are the tools of before `tools`.
    offered = next((key for key in ("tools", "functions") if row.get(key)), "tools")
    tools = tool_list(row.get(offered), offered, where)
    if (system := system_beside(row, where)) and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": system}, *messages)
    at = replies(messages)
    if not at:
        raise UnusableError("without assistant turn", "no assistant turn that was trained on, so nothing was learned")
    calls = any(m.get("tool_calls") for m in messages)
    return {
        "kind": "tool" if tools or calls else "chat",
        "prompt": as_prompt(messages[: at[0]]),
        "completion": as_text(messages[at[0]]),
        "messages": messages,
        "tools": tools,
        "n_reasoned": n_reasoned(messages),
    }


_MAKERS: Final[Mapping[str, Callable[[Row, str], dict[str, Any]]]] = {
    "prompt/chosen/rejected": preference,
    "input/preferred_output/non_preferred_output": preferred_output,
    "messages": _messages,
    "conversations": _conversations,
    "text": _text,
    "prompt/completion": _pair,
    "instruction/input/output": _instruction,
}


def _plain(row: Row, where: str) -> dict[str, Any]:
    """Explain a record of no shape that is known."""
    if "text" in row:
        string(row["text"], "text", where)  # it is null
    wanted = next((pair for pair in _PARTIAL if any(key in row for key in pair)), ("prompt", "completion"))
    missing = [key for key in wanted if row.get(key) is None]
    for key in wanted:
        if key in row and row[key] is None:
            string(row[key], key, where)
    raise BadInputError(_unknown_shape(row, missing), where=where, remedy=_suggest(row, missing))


_PARTIAL: Final = (CHOSEN, PREFERRED, ("instruction", "output"), ("prompt", "completion"))


def _refuse_misspelt(found: Row, where: str) -> None:
    """Refuse a key that is nearly `cluster`: ignoring it would make every interval too narrow without a word."""
    near = difflib.get_close_matches("cluster", [str(key) for key in found if key not in _KEYS], n=1, cutoff=0.8)
    if near and "cluster" not in found:
        raise BadInputError(f"unknown key `{near[0]}`", where=where, remedy="did you mean `cluster`?")


def _cluster(found: Row, where: str) -> str | None:
    value = found.get("cluster")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return None
    name = string(value, "cluster", where)
    if not name.strip():
        raise BadInputError("`cluster` is empty", where=where, remedy="give it a name or leave the key out")
    return name


def _unknown_shape(found: Row, missing: list[str]) -> str:
    if len(missing) == 1:
        return f"`{missing[0]}` is missing"
    keys = ", ".join(f"`{str(key)[:40]}`" for key in list(found)[:_MANY])
    return f"has {keys + (', ...' if len(found) > _MANY else '') if keys else 'no keys'}"


def _suggest(found: Row, missing: list[str]) -> str:
    wanted = [*missing, *(["text", "messages", "conversations"] if len(missing) > 1 else [])]
    for raw in found:
        key = str(raw)
        if key in PREFERRED:  # each is nearly the other, and means itself
            continue
        meant = _ALSO_CALLED.get(key.lower())
        if missing == ["output"] and meant == "completion":
            meant = "output"
        meant = meant or next(iter(difflib.get_close_matches(key.lower(), wanted, n=1)), None)
        if meant in wanted and meant != key:
            return f"did you mean `{meant}` where it says `{key[:40]}`? {SHAPES}; {OTHERS}"
    return f"{SHAPES}; {OTHERS}"
