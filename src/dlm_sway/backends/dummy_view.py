"""One view of the dummy: the scoring contract over its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.array_dist import F64, log_softmax, pick, top_of
from dlm_sway.backends.dummy_lm import F32, Ids
from dlm_sway.backends.dummy_text import END_ID, DummyCodec
from dlm_sway.backends.text_view import TextView
from dlm_sway.core.determinism import stream
from dlm_sway.core.scoring import TokenDist


class Forward(Protocol):
    """Computes the logits of one view."""

    def __call__(self, ids: Ids, keep: Ids) -> F32:
        """Return float32[P, K] of rows int64[N, L] at positions int64[P, 2]."""
        ...


class DummyView(TextView):
    """The dummy as it is inside one context; refuses to answer afterwards."""

    def __init__(self, name: str, codec: DummyCodec, forward: Forward, is_open: Callable[[Any], bool]) -> None:
        """Answer by `forward` for as long as `is_open(self)`."""
        super().__init__(name, codec, is_open)
        self._forward = forward

    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order.

        Raises:
            BadInputError: a prompt is longer than the context window.
        """
        return [top_of(self._next(self._fitting(prompt)), top_k) for prompt in prompts]

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone, as words `w7`; greedy at temperature 0, else sampled."""
        ids = self._codec.encode_prompt(prompt)
        rng, length = stream(seed, "dummy", "generate"), ids.size
        for _ in range(max_new_tokens):
            token = pick(self._next(ids), rng, temperature=temperature, top_p=top_p)
            if token == END_ID:
                break
            ids = np.append(ids, token)
        return self._codec.decode(ids[length:])

    def _next(self, ids: Ids) -> F64:
        """Return the log-probs of the next token, float64[K]."""
        row = ids[-self._codec.max_length :]
        logp: F64 = log_softmax(self._logits(row, np.array([row.size - 1])))[0]
        return logp

    def _scored(self, row: Ids, targets: Ids) -> F32:
        logp = log_softmax(self._logits(row, np.arange(row.size - targets.size, row.size)))
        return logp[np.arange(targets.size), targets].astype(np.float32)

    def _logits(self, row: Ids, positions: npt.NDArray[Any]) -> F32:
        self._require_open()
        return self._forward(row[None], np.stack([np.zeros_like(positions), positions], axis=1))
