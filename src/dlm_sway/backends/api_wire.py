"""What servers speak: llama.cpp's own `/completion`, and `/v1/completions` with or without the prompt's log-probs.

A dialect scores a row of tokens and continues a prompt. Which one a server speaks is found out once, by asking
(`api_find`); those that give text alone are in `api_text`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, ClassVar, Final, Literal, TypeAlias

from dlm_sway.backends.api_read import (
    broken,
    completion_reply,
    cost_of,
    entries_of,
    named_top,
    native_reply,
    native_top,
    top_of,
    whole,
)
from dlm_sway.backends.base import Messages, Reply, Scored
from dlm_sway.backends.http_client import Budget, HttpClient
from dlm_sway.backends.top_k import Top

_MOST_SLOTS: Final = 1024
_ALL: Final = 1 << 20  # more tokens than any vocabulary has; a server cuts it to what there is
Prompt: TypeAlias = "tuple[int, ...] | str | Messages"
"""What is to be continued: tokens, a text, or a conversation."""


@dataclass
class Wire(ABC):
    """A way to speak to one model on one server.

    Attributes:
        client: the server.
        budget: tokens that are left.
        model: the model's name on the server, or None.
        extra: what else goes into each request.
        most: how many of the most probable tokens the server names where it refused as many as were wanted, else None.
    """

    client: HttpClient
    budget: Budget
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    most: int | None = field(default=None, kw_only=True)

    name: ClassVar[str]
    deepens: ClassVar[bool] = False
    """Whether the whole distribution can be asked for."""
    scores: ClassVar[bool] = True
    """Whether there are log-probs."""
    takes: ClassVar[Literal["tokens", "text", "turns"]] = "tokens"
    """What a prompt is made of."""

    def having(self, extra: Mapping[str, Any]) -> Wire:
        """Return the same, with `extra` in each request."""
        changed = copy(self)
        changed.extra = {**self.extra, **extra}
        return changed

    @abstractmethod
    def score(self, row: Scored, top_k: int, *, deep: bool) -> list[Top]:
        """Return the top at each wanted position of a row.

        Raises:
            CannotRunError: the answer lacks log-probs, or holds what is no number.
        """

    @abstractmethod
    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return a continuation of `prompt`, which has the form that `takes` says.

        Raises:
            CannotRunError: the answer holds no text, or a count that is none.
        """

    def _post(self, path: str, body: dict[str, Any], *, tokens: int) -> Any:
        self.budget.require()
        named = {} if self.model is None else {"model": self.model}
        answer = self.client.post(path, {**named, **body, **self.extra})
        self.budget.spend(cost_of(answer, tokens))
        return answer


class Native(Wire):
    """llama.cpp's `/completion`: one request a position, each on top of the cache of the one before."""

    name = "llama.cpp /completion"
    deepens = True

    def __init__(self, client: HttpClient, budget: Budget, model: str | None, extra: Mapping[str, Any]) -> None:
        """Speak to `client`, and learn how many slots it has and a token of plain text.

        The server holds log-probs back while what it writes is no whole character, or an end. So it is made to write
        that token; log-probs are taken before such a bias is added. And each row keeps to one slot: a slot forgets
        what it read when the scale of a LoRA changes, but the store behind all slots does not, and would give one
        scale the other's numbers.
        """
        super().__init__(client, budget, model, extra)
        forced = _plain_token(client)
        self._forced: dict[str, Any] = {} if forced is None else {"logit_bias": [[forced, 1e4]]}
        said = client.get("/props")
        n_slots = whole(said.get("total_slots"), below=_MOST_SLOTS) if isinstance(said, dict) else None
        self._slots: SimpleQueue[int | None] = SimpleQueue()
        for slot in range(n_slots) if n_slots else [None]:
            self._slots.put(slot)

    @contextmanager
    def _slot(self) -> Iterator[dict[str, Any]]:
        """Yield what pins requests to a slot of their own; without slots nothing is reused."""
        slot = self._slots.get()
        try:
            yield {"cache_prompt": False} if slot is None else {"cache_prompt": True, "id_slot": slot}
        finally:
            self._slots.put(slot)

    def score(self, row: Scored, top_k: int, *, deep: bool) -> list[Top]:
        """Return the tops; where the token that follows is not in one, the whole distribution is asked for."""
        ids, tops = row.ids.tolist(), []
        with self._slot() as slot:
            for at, target in enumerate(row.targets.tolist()):
                prompt = ids[: row.first + 1 + at]
                reuse = slot if at else slot | {"cache_prompt": False}
                top = self._next(prompt, top_k, target, reuse)
                if deep and target >= 0 and math.isnan(top.target):
                    # Only this token is taken from it, so that every position is cut at the same depth.
                    top = Top(top.keys, top.logprobs, self._next(prompt, _ALL, target, slot).target, target)
                tops.append(top)
        return tops

    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return a continuation."""
        body = {"prompt": list(prompt), "n_predict": limit, **_drawing(temperature, top_p, seed)}
        with self._slot() as slot:
            answer = self._post("/completion", body | slot | {"cache_prompt": False}, tokens=len(prompt) + limit)
        return native_reply(answer, self.client.url)

    def _next(self, prompt: list[int], top_k: int, target: int, slot: dict[str, Any]) -> Top:
        body = {"prompt": prompt, "n_predict": 1, "n_probs": top_k, "temperature": 0.0, **slot, **self._forced}
        return native_top(self._post("/completion", body, tokens=len(prompt) + 1), target, self.client.url)


class Echo(Wire):
    """`/v1/completions` with `echo`: the log-probs of a whole prompt in one request."""

    name = "/v1/completions with echo"

    def score(self, row: Scored, top_k: int, *, deep: bool) -> list[Top]:  # noqa: ARG002 (it names the target anyway)
        """Return the tops."""
        ids, targets = row.ids.tolist(), row.targets.tolist()
        prompt = ids if targets[-1] < 0 else [*ids, targets[-1]]
        body = {"prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": top_k, "temperature": 0.0}
        where = self.client.url
        found = entries_of(self._post("/v1/completions", body, tokens=len(prompt) + 1), where)
        if len(found) < len(prompt) + 1:
            raise broken(f"log-probs of {len(found)} tokens where {len(prompt) + 1} were asked for: cut short", where)
        if len(found) > len(prompt) + 1:  # and so the number at each place is another token's
            what = f"log-probs of {len(found)} tokens where {len(prompt) + 1} were asked for"
            raise broken(f"{what}: the server adds tokens, such as a bos, to those that it is sent", where)
        wanted = found[row.first + 1 : len(ids) + 1]
        return [named_top(entry, where, known=t >= 0) for entry, t in zip(wanted, targets, strict=True)]

    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return a continuation."""
        return written(self, prompt, limit=limit, temperature=temperature, top_p=top_p, seed=seed)


class NextOnly(Wire):
    """`/v1/completions` that gives the log-probs of the next token alone: one request a position."""

    name = "/v1/completions, next token only"

    def score(self, row: Scored, top_k: int, *, deep: bool) -> list[Top]:  # noqa: ARG002 (there is no more to be had)
        """Return the tops; the token that follows is unknown where it is not in one, or named without its id."""
        ids, tops = row.ids.tolist(), []
        for at, target in enumerate(row.targets.tolist()):
            prompt = ids[: row.first + 1 + at]
            body = {"prompt": prompt, "max_tokens": 1, "logprobs": top_k, "temperature": 0.0}
            entries = entries_of(self._post("/v1/completions", body, tokens=len(prompt) + 1), self.client.url)
            tops.append(top_of(entries[0].get("top_logprobs") if entries else None, target, self.client.url))
        return tops

    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return a continuation."""
        return written(self, prompt, limit=limit, temperature=temperature, top_p=top_p, seed=seed)


def _plain_token(client: HttpClient) -> int | None:
    found = client.offers("/tokenize", {"content": "a", "add_special": False})
    ids = found.get("tokens") if isinstance(found, dict) else None
    return whole(ids[0]) if isinstance(ids, list) and len(ids) == 1 else None


def _drawing(temperature: float, top_p: float, seed: int) -> dict[str, Any]:
    if temperature <= 0:
        return {"temperature": 0.0}
    return {"temperature": temperature, "top_p": top_p, "top_k": 0, "min_p": 0.0, "seed": seed}


def drawn(temperature: float, top_p: float, seed: int) -> dict[str, Any]:
    """Return how a token is drawn, in the words that all servers know."""
    return {k: v for k, v in _drawing(temperature, top_p, seed).items() if k not in ("top_k", "min_p")}


def written(wire: Wire, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
    """Return what `/v1/completions` writes behind tokens or a text."""
    given = prompt if isinstance(prompt, str) else list(prompt)
    body = {"prompt": given, "max_tokens": limit, **drawn(temperature, top_p, seed)}
    answer = wire._post("/v1/completions", body, tokens=len(given) + limit)  # noqa: SLF001 (of the same family)
    return completion_reply(answer, wire.client.url)
