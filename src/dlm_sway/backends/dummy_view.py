"""One view of the dummy: the scoring contract over its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.dummy_lm import F32, F64, Ids, log_softmax
from dlm_sway.backends.dummy_text import END_ID, DummyCodec
from dlm_sway.backends.windows import windows
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError, ViewError
from dlm_sway.core.scoring import RollingLogprob, TokenDist

_SMALLEST: Final = float(np.log(np.finfo(np.float32).tiny))


class Forward(Protocol):
    """Computes the logits of one view."""

    def __call__(self, ids: Ids, keep: Ids) -> F32:
        """Return float32[P, K] of rows int64[N, L] at positions int64[P, 2]."""
        ...


class DummyView:
    """The dummy as it is inside one context; refuses to answer afterwards."""

    def __init__(self, name: str, codec: DummyCodec, forward: Forward, is_open: Callable[[DummyView], bool]) -> None:
        """Answer by `forward` for as long as `is_open(self)`."""
        self._name = name
        self._codec = codec
        self._forward = forward
        self._is_open = is_open

    @property
    def id(self) -> str:
        """Name of the backend and of the view."""
        return self._name

    def close(self) -> None:
        """Do nothing: the context that opened the view closes it."""

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-prob in nats of the completion's tokens given the prompt.

        Raises:
            BadInputError: the completion is empty or holds no token, or the prompt fills the context window.
        """
        pair = self._codec.encode_pair(prompt, completion, format="raw")
        return float(self._token_logprobs(pair.ids, start=pair.start).astype(np.float64).sum())

    def rolling_logprob(self, text: str) -> RollingLogprob:
        """Return the log-prob of every token given those before it; long texts in windows that overlap by half."""
        ids = self._codec.encode(text)
        logprobs = self._token_logprobs(ids, start=1)
        return RollingLogprob(ids, logprobs, len(ids), float(logprobs.astype(np.float64).sum()))

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the `top_k` most probable next tokens after `prompt`.

        Raises:
            BadInputError: the prompt is longer than the context window.
        """
        ids = self._codec.encode_prompt(prompt)
        if ids.size > self._codec.max_length:
            raise BadInputError(
                f"the prompt has {ids.size} tokens and the model reads {self._codec.max_length}",
                where=self._name,
                remedy="shorten the prompt; cutting it silently would change what is tested",
            )
        logp = self._next(ids)
        order = np.argsort(-logp, kind="stable")
        head, rest = order[:top_k], order[top_k:]
        tail = float(np.logaddexp.reduce(logp[rest])) if rest.size else None
        if tail is not None and tail < _SMALLEST:
            tail = 0.0
        return TokenDist(head.astype(np.int64), logp[head].astype(np.float32), logp.size, tail)

    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order."""
        return [self.next_token_dist(prompt, top_k=top_k) for prompt in prompts]

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone, as words `w7`; greedy at temperature 0, else sampled."""
        ids = self._codec.encode_prompt(prompt)
        rng, length = stream(seed, "dummy", "generate"), ids.size
        for _ in range(max_new_tokens):
            token = _pick(self._next(ids), rng, temperature=temperature, top_p=top_p)
            if token == END_ID:
                break
            ids = np.append(ids, token)
        return self._codec.decode(ids[length:])

    def _next(self, ids: Ids) -> F64:
        """Return the log-probs of the next token, float64[K]."""
        row = ids[-self._codec.max_length :]
        logp: F64 = log_softmax(self._logits(row, np.array([row.size - 1])))[0]
        return logp

    def _token_logprobs(self, ids: Ids, *, start: int) -> npt.NDArray[np.float32]:
        """Return float32[N - start], the log-probs of `ids[start:]`."""
        self._require_open()
        out = [np.empty(0, dtype=np.float32)]
        for w in windows(ids.size, start=start, limit=self._codec.max_length, where=self._name):
            targets = ids[w.first : w.end + 1]
            logp = log_softmax(self._logits(ids[w.begin : w.end], np.arange(w.first - 1, w.end) - w.begin))
            out.append(logp[np.arange(targets.size), targets].astype(np.float32))
        return np.concatenate(out)

    def _logits(self, row: Ids, positions: npt.NDArray[Any]) -> F32:
        self._require_open()
        return self._forward(row[None], np.stack([np.zeros_like(positions), positions], axis=1))

    def _require_open(self) -> None:
        if not self._is_open(self):
            raise ViewError("this view is closed", where=self._name, remedy="open it again and use it in its block")


def _pick(logp: F64, rng: np.random.Generator, *, temperature: float, top_p: float) -> int:
    """Return the next token: the most probable, or one drawn from the fewest that hold `top_p` of the mass."""
    if temperature <= 0:
        return int(np.argmax(logp))
    scaled = np.exp(log_softmax(logp / temperature))
    order = np.argsort(-scaled, kind="stable")
    before = np.cumsum(scaled[order]) - scaled[order]
    kept = order[before < top_p]
    return int(rng.choice(kept, p=scaled[kept] / scaled[kept].sum()))
