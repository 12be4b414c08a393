"""Finds out once, by asking, which dialect a server speaks, and how many of the most probable tokens it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dlm_sway.backends.api_read import entries_of
from dlm_sway.backends.api_text import Chat, PlainText, TextOnly
from dlm_sway.backends.api_wire import Echo, Native, NextOnly, Wire
from dlm_sway.backends.http_client import Budget, HttpClient
from dlm_sway.core.errors import BadInputError, CannotRunError

_TOKENS: Final = [1, 2, 3]
_COMPLETIONS: Final = "/v1/completions"
_CHAT: Final = "/v1/chat/completions"
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_FEWER: Final = (20, 5)
"""What servers allow that refuse more: vLLM by default (--max-logprobs), and what OpenAI's own API allowed."""


def find_wire(client: HttpClient, budget: Budget, *, model: str | None, extra: Mapping[str, Any], top_k: int) -> Wire:
    """Return the dialect that a server speaks: the one with the most log-probs that it answers.

    Args:
        client: the server.
        budget: tokens that are left.
        model: the model's name on the server, or None.
        extra: what else goes into each request.
        top_k: most probable tokens that will be asked for; a server that refuses so many is asked for fewer.

    Raises:
        BadInputError: it knows no such path or model, or refuses the key.
        CannotRunError: it cannot be reached, or its log-probs have a form that is not known.
    """
    if client.get("/props") is not None:
        return Native(client, budget, model, extra)
    named = {} if model is None else {"model": model}
    plain = {**named, "prompt": _TOKENS, "max_tokens": 1, "temperature": 0.0}
    echoed = plain | {"echo": True}
    answer = client.offers(_COMPLETIONS, echoed | {"logprobs": 1})
    if answer is not None and len(entries_of(answer, client.url)) > len(_TOKENS):
        return Echo(client, budget, model, extra, most=_most(client, echoed, top_k))
    answer = client.offers(_COMPLETIONS, plain | {"logprobs": 1})
    if answer is not None and entries_of(answer, client.url):
        return NextOnly(client, budget, model, extra, most=_most(client, plain, top_k))
    return _without_logprobs(client, budget, model, extra, plain=plain)


def _most(client: HttpClient, body: dict[str, Any], top_k: int) -> int | None:
    """Return how many tokens to ask for where the server refuses `top_k`, or None where it takes it."""
    for wanted in (top_k, *(fewer for fewer in _FEWER if fewer < top_k)):
        try:
            client.post(_COMPLETIONS, body | {"logprobs": wanted})
        except BadInputError as error:
            if not _is_about_logprobs(error):
                raise
            refused = error
        else:
            return None if wanted == top_k else wanted
    raise refused


def _is_about_logprobs(error: BadInputError) -> bool:
    return "(400)" in error.what and re.search(r"log[-_ ]?prob", error.what, re.IGNORECASE) is not None


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
