"""What a server said, value by value: what is malformed is one clear error, and never another exception.

A server may be any program, so nothing of an answer is used before its type is known. Values go into no message, but
for numbers: a server may send back what it was sent, the key among it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from dlm_sway.backends.base import Reply
from dlm_sway.backends.top_k import Key, Top
from dlm_sway.core.errors import CannotRunError

_LOWEST: Final = -1e4  # stands for log 0
_ROUNDING: Final = 1e-3  # of log 1
_NO_LOGPROBS: Final = "the answer holds no log-probs"
_NO_TEXT: Final = "the answer holds no text"
_UNKNOWN_FORM: Final = "the log-probs have a form that is not known, or differ in number"


def broken(what: str, where: str) -> CannotRunError:
    """Return the error that says what is wrong with an answer of the server at `where`."""
    return CannotRunError(what, where=where, remedy="see the server's log; the other probes go on")


def whole(value: Any, *, below: int = 1 << 31) -> int | None:
    """Return a number that counts something, or an id; None where the value is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below else None


def text_of(value: Any, where: str) -> str:
    """Return a text; half a surrogate pair, which no file can hold, becomes a replacement character.

    Raises:
        CannotRunError: it is none.
    """
    if not isinstance(value, str):
        raise broken(_NO_TEXT, where)
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def ids_of(value: Any, where: str) -> list[int]:
    """Return a list of tokens.

    Raises:
        CannotRunError: it is none.
    """
    ids = [whole(i) for i in value] if isinstance(value, list) else [None]
    known = [i for i in ids if i is not None]
    if len(known) < len(ids):
        raise broken("the answer holds tokens that are no ids", where)
    return known


def cost_of(answer: Any, otherwise: int) -> int:
    """Return how many tokens a request cost, as the server says, else as they were sent."""
    timings, usage = _part(answer, "timings"), _part(answer, "usage")
    read, wrote = whole(timings.get("prompt_n")), whole(timings.get("predicted_n") or 0)
    if read is not None and wrote is not None:
        return read + wrote
    total = whole(usage.get("total_tokens"))
    return otherwise if total is None else total


def native_reply(answer: Any, where: str) -> Reply:
    """Return what llama.cpp's `/completion` wrote.

    Raises:
        CannotRunError: the answer holds no text, or a count that is none.
    """
    said = answer if isinstance(answer, dict) else {}
    text, n_tokens = text_of(said.get("content"), where), _count(said.get("tokens_predicted"), where)
    return Reply(text, n_tokens, said.get("stop_type") != "limit" and not said.get("truncated", False))


def completion_reply(answer: Any, where: str) -> Reply:
    """Return what `/v1/completions` wrote.

    Raises:
        CannotRunError: the answer holds no text, or a count that is none.
    """
    choice = _choice(answer, where, missing=_NO_TEXT)
    return _reply(answer, choice, text_of(choice.get("text"), where), where)


def chat_reply(answer: Any, where: str) -> Reply:
    """Return what `/v1/chat/completions` wrote; a null is no words.

    Raises:
        CannotRunError: the answer holds no text, or a count that is none.
    """
    choice = _choice(answer, where, missing=_NO_TEXT)
    message = _part(choice, "message")
    silent = "content" in message and message["content"] is None
    return _reply(answer, choice, "" if silent else text_of(message.get("content"), where), where)


def native_top(answer: Any, target: int, where: str) -> Top:
    """Return the top that llama.cpp's `/completion` gives for the next token; `target` is an id, or -1.

    Raises:
        CannotRunError: the answer lacks log-probs, or holds what is none.
    """
    found = answer.get("completion_probabilities") if isinstance(answer, dict) else None
    first = found[0] if isinstance(found, list) and found else None
    return top_of(first.get("top_logprobs") if isinstance(first, dict) else None, target, where)


def entries_of(answer: Any, where: str) -> list[dict[str, Any]]:
    """Return an entry a token with `logprob`, `top_logprobs` and the token's name, from either form of the API.

    Raises:
        CannotRunError: the log-probs have another form; that there are none is an empty list.
    """
    logprobs = _choice(answer, where, missing=_UNKNOWN_FORM).get("logprobs") or {}
    if not isinstance(logprobs, dict):
        raise broken(_UNKNOWN_FORM, where)
    if (content := logprobs.get("content")) is not None:
        if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
            raise broken(_UNKNOWN_FORM, where)
        return content
    parts = [logprobs.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs")]
    if not all(isinstance(part, list) for part in parts):
        raise broken(_UNKNOWN_FORM, where)
    tokens, own, tops = parts
    tops = tops or [None] * len(tokens)
    if not len(tokens) == len(own) == len(tops) or not all(isinstance(top or {}, dict) for top in tops):
        raise broken(_UNKNOWN_FORM, where)
    return [
        {"token": t, "logprob": x, "top_logprobs": [{"token": k, "logprob": v} for k, v in (top or {}).items()]}
        for t, x, top in zip(tokens, own, tops, strict=True)
    ]


def top_of(entries: Any, target: int, where: str) -> Top:
    """Return the top of a list of entries; `target` is an id, or -1.

    Raises:
        CannotRunError: there is no entry, or one is malformed.
    """
    if not isinstance(entries, list) or not entries:
        raise broken(_NO_LOGPROBS, where)
    pairs = sorted(((_number(e, where), _key(e, where)) for e in entries), key=lambda pair: -pair[0])
    keys, values = tuple(key for _, key in pairs), np.array([x for x, _ in pairs])
    known = keys.index(target) if target in keys else None
    return Top(keys, values, math.nan if known is None else float(values[known]), target if known is not None else None)


def named_top(entry: dict[str, Any], where: str, *, known: bool) -> Top:
    """Return the top at a position whose next token the entry itself is.

    Raises:
        CannotRunError: the entry is malformed.
    """
    own = _number(entry, where)
    top = top_of(entry.get("top_logprobs") or [entry], -1, where)
    return Top(top.keys, top.logprobs, own, _key(entry, where)) if known else top


def _part(answer: Any, name: str) -> dict[str, Any]:
    part = answer.get(name) if isinstance(answer, dict) else None
    return part if isinstance(part, dict) else {}


def _choice(answer: Any, where: str, *, missing: str) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise broken(missing, where)
    return choice


def _reply(answer: dict[str, Any], choice: Mapping[str, Any], text: str, where: str) -> Reply:
    usage = answer.get("usage") or {}
    n_tokens = _count(usage.get("completion_tokens") if isinstance(usage, dict) else usage, where)
    return Reply(text, n_tokens, choice.get("finish_reason") != "length")


def _count(value: Any, where: str) -> int:
    n = 0 if value is None else whole(value)
    if n is None:
        raise broken("the answer holds a number of tokens that is none", where)
    return n


def _number(entry: Any, where: str) -> float:
    value = entry.get("logprob") if isinstance(entry, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not value <= _ROUNDING:  # so is NaN
        said = value if value is None or isinstance(value, int | float) else type(value).__name__
        raise broken(f"a log-prob is {str(said)[:20]}, which is none", where)
    return float(max(value, _LOWEST))


def _key(entry: Mapping[str, Any], where: str) -> Key:
    if (token := whole(entry.get("id"))) is not None:
        return token
    spelled, text = entry.get("bytes"), entry.get("token")
    if isinstance(spelled, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in spelled):  # noqa: PLR2004 (a byte)
        return bytes(spelled)
    if not isinstance(text, str):
        raise broken("a token of the log-probs has neither id nor text", where)
    return text
