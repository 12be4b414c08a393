"""What a backend offers beyond the scoring contract, so that the engine can run it in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.spectra import Spectrum
from dlm_sway.core.views import View

Format: TypeAlias = Literal["auto", "chat", "raw"]
Messages: TypeAlias = tuple[Mapping[str, Any], ...]
"""A conversation: mappings with `role` and `content`, and whatever else the model's chat template reads."""
Tools: TypeAlias = tuple[Mapping[str, Any], ...]
"""Tools as chat templates take them: `{"type": "function", "function": {"name", "description", "parameters"}}`."""


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
class ChatCodec(TextCodec, Protocol):
    """A codec that renders conversations, and tools, through the model's own chat template."""

    def encode_messages(
        self, messages: Messages, tools: Tools | None = None, *, add_generation_prompt: bool = True
    ) -> npt.NDArray[np.int64]:
        """Encode a conversation for what follows it.

        Raises:
            BadInputError: there is no template, it refuses the conversation, or it shows the tools nowhere.
        """
        ...

    def encode_reply(self, messages: Messages, completion: str, tools: Tools | None = None) -> Encoded:
        """Encode a conversation and the reply to it once, together, split at the character boundary.

        Raises:
            BadInputError: as for `encode_messages`, or the reply is empty or holds no token.
        """
        ...

    def tools_refusal(self) -> str | None:
        """Return why tools cannot be shown to the model, or None when they can."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend wrote itself.

    Attributes:
        text: the continuation, special tokens left out.
        n_tokens: its length.
        stopped: whether the model ended it (else the limit did).
    """

    text: str
    n_tokens: int
    stopped: bool


@runtime_checkable
class WritingBackend(Protocol):
    """A backend that writes text itself, so that the engine need not decode it from logits."""

    def write(
        self,
        prompts: Sequence[str | Messages],
        view: View,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        format: Format = "auto",  # noqa: A002 (DESIGN 5's word)
        tools: Tools | None = None,
    ) -> Sequence[Reply] | None:
        """Return a reply a prompt, or None where the engine is to decode from logits."""
        ...


@runtime_checkable
class ScoreRefusing(Protocol):
    """A backend behind which there may be text alone."""

    def scores_refusal(self) -> str | None:
        """Return why no log-prob can be had, or None when they can."""
        ...


@runtime_checkable
class ByteScored(Protocol):
    """A backend whose positions are bytes: its models share no vocabulary."""

    def token_refusal(self) -> str:
        """Return why its models cannot be compared token by token."""
        ...


@dataclass(frozen=True, slots=True)
class RankedModule:
    """What is known of the rank of one adapted module.

    Attributes:
        spectrum: singular values of delta W, its scale included.
        d_out: number of outputs.
    """

    spectrum: Spectrum
    d_out: int


@runtime_checkable
class AdapterBackend(Protocol):
    """A backend that knows its adapter: whether it has a scale, a spectrum, and directions to be cut to."""

    def scale_refusal(self) -> str | None:
        """Return why the adapter's effect cannot be scaled, or None when it can."""
        ...

    def cut_refusal(self) -> str | None:
        """Return why the adapter cannot be cut to its largest directions, or None when it can."""
        ...

    def spectra(self) -> Mapping[str, RankedModule]:
        """Return the spectrum of delta W by module."""
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


class Scored(Protocol):
    """A token sequence and the positions wanted of it.

    Attributes:
        ids: int64[n], what the model reads.
        first: index of the first position whose next token is wanted; all later ones are wanted too.
        targets: int64[n - first], the token that follows each wanted position; -1 where there is none.
    """

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def first(self) -> int: ...  # noqa: D102
    @property
    def targets(self) -> npt.NDArray[np.int64]: ...  # noqa: D102


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


@runtime_checkable
class StackedLogitBackend(BulkBackend, Protocol):
    """A bulk backend that computes logits itself, in numpy, all views of a call in one pass."""

    def views_per_pass(self) -> int:
        """Return how many views besides the base one call should have at most, at least 1."""
        ...

    def logit_blocks(
        self, ids: npt.NDArray[np.int64], keep: npt.NDArray[np.int64], views: Sequence[View]
    ) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Yield `(block of keep, logits float32[1 + V, p, vocab])`, in order, of bounded size; index 0 is the base.

        Args:
            ids: int64[N, L], right-padded rows.
            keep: int64[P, 2], (row, position); the logits at a position predict the token after it.
            views: the views besides the base.
        """
        ...


@runtime_checkable
class GradientBackend(BulkBackend, Protocol):
    """A bulk backend that can differentiate the base along the adapter's factors.

    An adapted module computes W x + s B A x. Its gradient with respect to B at B = 0 says which way the first step of
    training on a text would go.
    """

    def gradient_refusal(self) -> str | None:
        """Return why no module of this adapter has such a gradient, or None when one has."""
        ...

    def trained_factors(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return the trained B of each module that has a gradient, float32[d_out, r], by its name in the base."""
        ...

    def without_gradient(self) -> tuple[str, ...]:
        """Return names of trained tensors that `trained_factors` leaves out."""
        ...

    def factor_gradients(
        self, ids: npt.NDArray[np.int64], first: int, targets: npt.NDArray[np.int64]
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return the gradient of a text's log-prob with respect to each B at B = 0, s included, float32[d_out, r].

        The model is held by `exclusive`. One backward pass; memory is that of one sequence.

        Args:
            ids: int64[n], what the model reads.
            first: index of the first logit that counts.
            targets: int64[n - first], the tokens whose log-probs are summed.
        """
        ...


@runtime_checkable
class ScalarBackend(BulkBackend, Protocol):
    """A bulk backend that has no logits to give, but compares views with the base itself: a server, mostly."""

    @property
    def source_name(self) -> str:
        """How its numbers are made, for reports; says what is a bound."""
        ...

    def scalars(
        self, rows: Sequence[Scored], views: Sequence[View], reducers: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return per-position scalars of rows, rows one after another along the last axis.

        Args:
            rows: token sequences and the positions wanted of each.
            views: the views besides the base.
            reducers: what is wanted; NaN where it cannot be known.

        Returns:
            float32[V, P] for each reducer, and `base_logprob` float32[P].
        """
        ...

    def repeat(self, rows: Sequence[Scored]) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return `kl` and `gain`, float32[P], of the base against itself: computed twice, for the numeric floor."""
        ...
