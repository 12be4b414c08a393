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

import numpy as np

from dlm_sway.backends.base import Messages, Reply, Scored
from dlm_sway.backends.http_client import Budget, HttpClient
from dlm_sway.backends.top_k import Key, Top
from dlm_sway.core.errors import CannotRunError

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
    """

    client: HttpClient
    budget: Budget
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

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
        """Return a continuation of `prompt`, which has the form that `takes` says."""

    def _post(self, path: str, body: dict[str, Any], *, tokens: int) -> Any:
        self.budget.require()
        named = {} if self.model is None else {"model": self.model}
        answer = self.client.post(path, {**named, **body, **self.extra})
        self.budget.spend(_processed(answer, tokens))
        return answer

    def _broken(self, what: str) -> CannotRunError:
        return CannotRunError(what, where=self.client.url, remedy="see the server's log; the other probes go on")


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
        n_slots = said.get("total_slots") if isinstance(said, dict) else None
        self._slots: SimpleQueue[int | None] = SimpleQueue()
        for slot in range(n_slots) if isinstance(n_slots, int) and n_slots > 0 else [None]:
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
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), str):
            raise self._broken("the answer holds no text")
        stopped = answer.get("stop_type") != "limit" and not answer.get("truncated", False)
        return Reply(answer["content"], int(answer.get("tokens_predicted") or 0), stopped)

    def _next(self, prompt: list[int], top_k: int, target: int, slot: dict[str, Any]) -> Top:
        body = {"prompt": prompt, "n_predict": 1, "n_probs": top_k, "temperature": 0.0, **slot, **self._forced}
        answer = self._post("/completion", body, tokens=len(prompt) + 1)
        try:
            entries = answer["completion_probabilities"][0]["top_logprobs"]
        except (KeyError, IndexError, TypeError):
            raise self._broken(_NO_LOGPROBS) from None
        return _top(entries, target, self)


class Echo(Wire):
    """`/v1/completions` with `echo`: the log-probs of a whole prompt in one request."""

    name = "/v1/completions with echo"

    def score(self, row: Scored, top_k: int, *, deep: bool) -> list[Top]:  # noqa: ARG002 (it names the target anyway)
        """Return the tops."""
        ids, targets = row.ids.tolist(), row.targets.tolist()
        prompt = ids if targets[-1] < 0 else [*ids, targets[-1]]
        body = {"prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": top_k, "temperature": 0.0}
        answer = self._post("/v1/completions", body, tokens=len(prompt) + 1)
        found = listed(answer, self)
        if len(found) < len(prompt) + 1:
            raise self._broken(f"log-probs of {len(found)} tokens where {len(prompt) + 1} were asked for: cut short")
        wanted = found[row.first + 1 : len(ids) + 1]
        return [_named(entry, self, known=t >= 0) for entry, t in zip(wanted, targets, strict=True)]

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
            entries = listed(self._post("/v1/completions", body, tokens=len(prompt) + 1), self)
            if not entries:
                raise self._broken(_NO_LOGPROBS)
            tops.append(_top(entries[0]["top_logprobs"], target, self))
        return tops

    def write(self, prompt: Prompt, *, limit: int, temperature: float, top_p: float, seed: int) -> Reply:
        """Return a continuation."""
        return written(self, prompt, limit=limit, temperature=temperature, top_p=top_p, seed=seed)


_NO_LOGPROBS: Final = "the answer holds no log-probs"


def _plain_token(client: HttpClient) -> int | None:
    found = client.offers("/tokenize", {"content": "a", "add_special": False})
    ids = found.get("tokens") if isinstance(found, dict) else None
    return ids[0] if isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], int) else None


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
    try:
        choice = answer["choices"][0]
        text, stopped = choice["text"], choice.get("finish_reason") != "length"
        n_tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise wire._broken("the answer holds no text") from None  # noqa: SLF001 (as above)
    return Reply(str(text), n_tokens, stopped)


def listed(answer: Any, wire: Wire) -> list[dict[str, Any]]:
    """Return an entry a token with `logprob`, `top_logprobs` and the token's name, from either form of the API."""
    try:
        logprobs = answer["choices"][0].get("logprobs") or {}
        if logprobs.get("content") is not None:
            return list(logprobs["content"])
        tokens, own, tops = (logprobs.get(k) or [] for k in ("tokens", "token_logprobs", "top_logprobs"))
        return [
            {"token": t, "logprob": x, "top_logprobs": [{"token": k, "logprob": v} for k, v in (top or {}).items()]}
            for t, x, top in zip(tokens, own, tops or [{}] * len(tokens), strict=True)
        ]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise wire._broken("the log-probs have a form that is not known, or differ in number") from None  # noqa: SLF001 (of the same family)


def _key(entry: Mapping[str, Any]) -> Key:
    if isinstance(entry.get("id"), int):
        return int(entry["id"])
    if isinstance(entry.get("bytes"), list):
        return bytes(entry["bytes"])
    return str(entry["token"])


def _number(entry: Mapping[str, Any], wire: Wire) -> float:
    value = entry.get("logprob")
    if not isinstance(value, int | float) or math.isnan(value) or value > 1e-3:  # noqa: PLR2004 (rounding, of log 1)
        raise wire._broken(f"a log-prob is {value!r}, which is none")  # noqa: SLF001 (of the same family)
    return max(float(value), -1e4)


def _top(entries: Any, target: int, wire: Wire) -> Top:
    """Return the top of a list of entries; `target` is an id, or -1."""
    try:
        pairs = sorted(((_number(e, wire), _key(e)) for e in entries), key=lambda pair: -pair[0])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise wire._broken("a token of the log-probs has neither id nor text") from None  # noqa: SLF001 (as above)
    if not pairs:
        raise wire._broken(_NO_LOGPROBS)  # noqa: SLF001 (as above)
    keys, values = tuple(key for _, key in pairs), np.array([x for x, _ in pairs])
    known = keys.index(target) if target in keys else None
    return Top(keys, values, math.nan if known is None else float(values[known]), target if known is not None else None)


def _named(entry: dict[str, Any], wire: Wire, *, known: bool) -> Top:
    """Return the top at a position whose next token the entry itself is."""
    own = _number(entry, wire)
    top = _top(entry.get("top_logprobs") or [entry], -1, wire)
    return Top(top.keys, top.logprobs, own, _key(entry)) if known else top


def _processed(answer: Any, otherwise: int) -> int:
    """Return how many tokens a request cost, as the server says, else as they were sent."""
    if not isinstance(answer, dict):
        return otherwise
    timings, usage = answer.get("timings"), answer.get("usage")
    if isinstance(timings, dict) and isinstance(timings.get("prompt_n"), int):
        return int(timings["prompt_n"]) + int(timings.get("predicted_n") or 0)
    if isinstance(usage, dict) and isinstance(usage.get("total_tokens"), int):
        return int(usage["total_tokens"])
    return otherwise
