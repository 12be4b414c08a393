"""Servers that give text and no log-probs: `/v1/completions` without them, and `/v1/chat/completions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from dlm_sway.backends.api_read import chat_reply
from dlm_sway.backends.api_wire import Prompt, Wire, drawn, written
from dlm_sway.backends.base import Reply, Scored
from dlm_sway.backends.top_k import Top
from dlm_sway.core.errors import NotOfferedError

NO_LOGPROBS: Final = "the server gives no log-probs, so nothing about probabilities can be tested"


@dataclass
class TextOnly(Wire):
    """A dialect without log-probs."""

    name = "/v1/completions, text alone"
    scores: ClassVar[bool] = False

    def score(self, row: Scored, top_k: int, *, deep: bool) -> list[Top]:  # noqa: ARG002 (there is nothing to ask)
        """Refuse.

        Raises:
            NotOfferedError: always.
        """
        raise NotOfferedError(NO_LOGPROBS, where=self.client.url)

    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return a continuation."""
        return written(self, prompt, limit=limit, temperature=temperature, top_p=top_p, seed=seed)


@dataclass
class PlainText(TextOnly):
    """The same, on a server that takes no tokens."""

    takes: ClassVar[Literal["tokens", "text", "turns"]] = "text"


@dataclass
class Chat(TextOnly):
    """`/v1/chat/completions`: the server's own template makes a prompt of the conversation.

    Attributes:
        limit_name: what this server calls the largest number of new tokens.
    """

    limit_name: str = "max_tokens"

    name = "/v1/chat/completions, text alone"
    takes: ClassVar[Literal["tokens", "text", "turns"]] = "turns"

    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return the reply to a conversation."""
        body = {"messages": list(prompt), self.limit_name: limit, **drawn(temperature, top_p, seed)}
        answer = self._post("/v1/chat/completions", body, tokens=len(str(prompt)) // 4 + limit)
        return chat_reply(answer, self.client.url)
