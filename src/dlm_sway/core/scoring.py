"""The scoring contract: what a backend must answer, and nothing about how it does so.

Log-probs are natural logarithms (nats). Nothing here imports torch.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from dlm_sway.core.model import Model

TokenIds: TypeAlias = npt.NDArray[np.int64]
Logprobs: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RollingLogprob:
    """Teacher-forced log-probs of a text.

    Attributes:
        token_ids: int64[N], the text's tokens, special tokens of the tokenizer included.
        logprobs: float32[N-1], nats; `logprobs[i]` scores `token_ids[i + 1]` given all tokens before it.
        num_tokens: N.
        total_logprob: sum of `logprobs`, nats.
    """

    token_ids: TokenIds
    logprobs: Logprobs
    num_tokens: int
    total_logprob: float

    @property
    def mean_logprob(self) -> float:
        """Nats per scored token, `total / (N - 1)`; 0.0 when nothing was scored."""
        return self.total_logprob / (self.num_tokens - 1) if self.num_tokens > 1 else 0.0

    @property
    def perplexity(self) -> float:
        """`exp(-mean_logprob)`, so 1.0 when nothing was scored."""
        return math.exp(-self.mean_logprob)


@dataclass(frozen=True, slots=True)
class TokenDist:
    """The top of a next-token distribution, most probable first.

    Attributes:
        token_ids: int64[k].
        logprobs: float32[k], nats, descending.
        vocab_size: number of entries that the whole distribution has.
        tail_logprob: log of the mass outside the k entries. `None`: there is none (the entries cover the
            vocabulary) or the rest lies under the backend's floor. `0.0`: a tail exists but is not measurable
            in fp32. Negative: the log of that mass.
    """

    token_ids: TokenIds
    logprobs: Logprobs
    vocab_size: int
    tail_logprob: float | None = None


@runtime_checkable
class ScoringBackend(Protocol):
    """A model, or one view of it, that can score text."""

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-prob in nats of the completion's tokens alone, given the prompt.

        Prompt and completion are encoded once, together, and split at the character boundary; a token that
        straddles the boundary counts as completion.

        Raises:
            SwayError: the completion is empty or holds no token.
        """
        ...

    def rolling_logprob(self, text: str) -> RollingLogprob:
        """Return the log-prob of every token of `text` given those before it.

        Texts beyond the context window are read with a stride that scores every token exactly once, as
        lm-evaluation-harness does in `loglikelihood_rolling`.
        """
        ...

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the `top_k` most probable next tokens after `prompt`."""
        ...

    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order; an override agrees with the loop within fp32 tolerance."""
        return [self.next_token_dist(prompt, top_k=top_k) for prompt in prompts]


@runtime_checkable
class ScoringModel(Model, ScoringBackend, Protocol):
    """Both a `Model` and a `ScoringBackend`: what every view is."""


@runtime_checkable
class DifferentialBackend(Protocol):
    """A base model and its fine-tune on one loaded copy of the weights.

    At most one view is open at a time: opening a second raises, and so does using a view after its context
    closed. Otherwise numbers of one view could silently be those of another.
    """

    def as_base(self) -> AbstractContextManager[ScoringModel]:
        """Open the base model."""
        ...

    def as_finetuned(self) -> AbstractContextManager[ScoringModel]:
        """Open the fine-tune."""
        ...


@runtime_checkable
class ScalableDifferentialBackend(DifferentialBackend, Protocol):
    """A differential backend that can scale the adapter's term."""

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[ScoringModel]:
        """Open the model with the adapter's term multiplied by `lam`: 0 is base, 1 fine-tuned, 1.25 overshoots."""
        ...


@runtime_checkable
class NullCalibratedBackend(DifferentialBackend, Protocol):
    """A differential backend that can put an adapter of random weights in the real one's place."""

    def as_null_adapter(
        self, seed: int, *, init_scale: float = 0.02, rank_scale: float = 1.0
    ) -> AbstractContextManager[ScoringModel]:
        """Open an adapter of the same structure with zero-mean Gaussian factors (null N2).

        Args:
            seed: the same seed and options give the same weights.
            init_scale: standard deviation of both factors at `rank_scale` 1.
            rank_scale: multiplies the variance, so the std is `init_scale * sqrt(rank_scale)`.

        Raises:
            ValueError: `rank_scale` is not positive and finite.
        """
        ...


@runtime_checkable
class PreflightCheckable(Protocol):
    """A backend that can be asked, cheaply, whether its numbers are finite."""

    def preflight_finite_check(self) -> tuple[bool, str]:
        """Run one forward a view on a fixed prompt; return `(ok, reason)`."""
        ...
