"""What a backend offers beyond the scoring contract, so that the engine can run it in bulk."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from dlm_sway.core.views import View

Format: TypeAlias = Literal["auto", "chat", "raw"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt and its completion as one token sequence.

    Attributes:
        ids: int64[N], all tokens.
        start: index of the first completion token; at least 1, since a token needs something before it.
    """

    ids: npt.NDArray[np.int64]
    start: int

    @property
    def n_scored(self) -> int:
        """Number of tokens that a log-prob exists for."""
        return len(self.ids) - self.start


@runtime_checkable
class TextCodec(Protocol):
    """Turns text into the model's tokens."""

    @property
    def max_length(self) -> int:
        """Longest sequence the model can read, in tokens."""
        ...

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be rendered as a conversation."""
        ...

    def encode_pair(self, prompt: str, completion: str, *, format: Format = "auto") -> Encoded:  # noqa: A002 (DESIGN 5's word)
        """Encode prompt and completion once, together, split at the character boundary."""
        ...

    def encode_prompt(self, prompt: str, *, format: Format = "raw") -> npt.NDArray[np.int64]:  # noqa: A002 (DESIGN 5's word)
        """Encode a prompt for what follows it; never empty."""
        ...

    def decode(self, ids: npt.NDArray[np.int64]) -> str:
        """Return the text of tokens, special ones left out."""
        ...


@runtime_checkable
class BulkBackend(Protocol):
    """A backend that the engine can drive: it encodes, and computes logits for many views of the same tokens."""

    @property
    def codec(self) -> TextCodec:
        """The model's tokenizer with its rules."""
        ...

    def null_refusal(self) -> str | None:
        """Return why rotation nulls cannot be drawn for this adapter, or None when they can."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the model for bulk work; no view may be open meanwhile."""
        ...


@runtime_checkable
class LogitBackend(BulkBackend, Protocol):
    """A bulk backend that computes logits itself, in numpy, a view at a time."""

    def logits(self, ids: npt.NDArray[np.int64], keep: npt.NDArray[np.int64], view: View) -> npt.NDArray[np.float32]:
        """Return the logits of one view at chosen positions, float32[P, vocab].

        Args:
            ids: int64[N, L], right-padded rows.
            keep: int64[P, 2], (row, position); the logits at a position predict the token after it.
            view: whose logits.
        """
        ...
