"""One view of a model: the parts of the scoring contract that are the same wherever the numbers come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import TextCodec
from dlm_sway.backends.windows import length_sorted_batches, windows
from dlm_sway.core.errors import BadInputError, ViewError
from dlm_sway.core.scoring import RollingLogprob, TokenDist

Ids: TypeAlias = npt.NDArray[np.int64]
F32: TypeAlias = npt.NDArray[np.float32]


class WholeTextCodec(TextCodec, Protocol):
    """A codec that also encodes a text by itself, as the tokenizer does by default."""

    def encode(self, text: str) -> Ids:
        """Return the tokens of `text`, int64[N]."""
        ...


class TextView(ABC):
    """A model as it is inside one context; refuses to answer afterwards.

    A backend says how a row is scored, how distributions are made, and how text is written.

    Args:
        name: of the backend and of the view.
        codec: the model's tokenizer with its rules.
        is_open: whether a view may still answer.
    """

    def __init__(self, name: str, codec: WholeTextCodec, is_open: Callable[[Any], bool]) -> None:
        self._name = name
        self._codec = codec
        self._is_open = is_open

    @property
    def id(self) -> str:
        """Name of the backend and of the view."""
        return self._name

    def close(self) -> None:  # noqa: B027 (nothing to do, for every backend)
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
        return self.next_token_dist_batch([prompt], top_k=top_k)[0]

    @abstractmethod
    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order."""

    @abstractmethod
    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone; greedy at temperature 0, else sampled with `seed`."""

    @abstractmethod
    def _scored(self, row: Ids, targets: Ids) -> F32:
        """Return float32[len(targets)]: log-probs of `targets`, the last of them after the whole of `row`."""

    def _token_logprobs(self, ids: Ids, *, start: int) -> F32:
        """Return float32[N - start], the log-probs of `ids[start:]`."""
        self._require_open()
        parts = windows(len(ids), start=start, limit=self._codec.max_length, where=self._name)
        scored = [self._scored(ids[w.begin : w.end], ids[w.first : w.end + 1]) for w in parts]
        return np.concatenate([np.empty(0, dtype=np.float32), *scored])

    def _fitting(self, prompt: str) -> Ids:
        """Return the tokens of a prompt that fits the context window."""
        ids = self._codec.encode_prompt(prompt)
        if len(ids) > self._codec.max_length:
            raise BadInputError(
                f"a prompt has {len(ids)} tokens and the model reads {self._codec.max_length}",
                where=self._name,
                remedy="shorten the prompt; cutting it silently would change what is tested",
            )
        return ids

    def _require_open(self) -> None:
        if not self._is_open(self):
            raise ViewError("this view is closed", where=self._name, remedy="open it again and use it in its block")


class PaddedView(TextView):
    """A view that reads prompts of like length together, padded."""

    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order, computed in length-sorted batches.

        Raises:
            BadInputError: a prompt is longer than the context window.
        """
        self._require_open()
        rows = [self._fitting(p) for p in prompts]
        out: dict[int, TokenDist] = {}
        for batch in length_sorted_batches(rows):
            out |= zip(batch, self._tops([rows[i] for i in batch], top_k), strict=True)
        return [out[i] for i in range(len(rows))]

    @abstractmethod
    def _tops(self, rows: list[Ids], top_k: int) -> list[TokenDist]:
        """Return what follows each row, in one pass."""
