"""Finds out once, by asking, which dialect a server speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dlm_sway.backends.api_read import entries_of
from dlm_sway.backends.api_text import Chat, PlainText, TextOnly
from dlm_sway.backends.api_wire import Echo, Native, NextOnly, Wire
from dlm_sway.backends.http_client import Budget, HttpClient
from dlm_sway.core.errors import CannotRunError

_TOKENS: Final = [1, 2, 3]
_COMPLETIONS: Final = "/v1/completions"
_CHAT: Final = "/v1/chat/completions"
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def find_wire(client: HttpClient, budget: Budget, *, model: str | None, extra: Mapping[str, Any]) -> Wire:
    """Return the dialect that a server speaks: the one with the most log-probs that it answers.

    Raises:
        BadInputError: it knows no such path or model, or refuses the key.
        CannotRunError: it cannot be reached, or its log-probs have a form that is not known.
    """
    if client.get("/props") is not None:
        return Native(client, budget, model, extra)
    named = {} if model is None else {"model": model}
    plain = {**named, "prompt": _TOKENS, "max_tokens": 1, "temperature": 0.0}
    answer = client.offers(_COMPLETIONS, plain | {"logprobs": 1, "echo": True})
    if answer is not None and len(entries_of(answer, client.url)) > len(_TOKENS):
        return Echo(client, budget, model, extra)
    answer = client.offers(_COMPLETIONS, plain | {"logprobs": 1})
    if answer is not None and entries_of(answer, client.url):
        return NextOnly(client, budget, model, extra)
    return _without_logprobs(client, budget, model, extra, plain=plain)


def _without_logprobs(
    client: HttpClient, budget: Budget, model: str | None, extra: Mapping[str, Any], *, plain: dict[str, Any]
) -> Wire:
    if client.offers(_COMPLETIONS, plain) is not None:
        return TextOnly(client, budget, model, extra)
    if client.offers(_COMPLETIONS, plain | {"prompt": "a"}) is not None:
        return PlainText(client, budget, model, extra)
    asked = {k: v for k, v in plain.items() if k == "model"} | {"messages": [{"role": "user", "content": "a"}]}
    for limit in _LIMITS:
        if client.offers(_CHAT, {**asked, limit: 1}) is not None:
            return Chat(client, budget, model, extra, limit)
    client.post(_COMPLETIONS, plain)  # which says what is wrong
    raise CannotRunError("the server changes its mind about what it answers", where=client.url)
