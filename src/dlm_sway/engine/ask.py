"""What a probe asks of the engine, and what it gets back. No torch: probes are pure functions of these arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import Format, Messages, Tools
from dlm_sway.core.views import View

Reducer: TypeAlias = Literal["gain", "kl", "kl_rev", "js", "tv", "entropy", "rank", "top1"]
Position: TypeAlias = Literal["completion", "last"]


@dataclass(frozen=True, slots=True)
class TextItem:
    """One text to score.

    Attributes:
        prompt: what is given; may be empty.
        completion: what is scored; empty when only the next token's distribution is asked for.
        cluster: what is kept together in intervals, such as a document.
        label: how reports name the item.
        stratum: what subsets are balanced over, such as a register.
        messages: a conversation that is given in the prompt's place, through the model's chat template whatever the
            ask's format; the completion is the reply to it.
    """

    prompt: str
    completion: str
    cluster: str
    label: str
    stratum: str = ""
    messages: Messages = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """Items to score under views; the base is always the reference.

    Attributes:
        items: what to score.
        views: the views besides the base, in the order of the answer's leading axis.
        reducers: per-position scalars wanted, each comparing a view with the base.
        position: every token of the completion, or the next token after the prompt.
        format: how prompts are rendered.
        max_tokens: score at most this many tokens of an item, its first ones.
    """

    items: tuple[TextItem, ...]
    views: tuple[View, ...]
    reducers: frozenset[Reducer]
    position: Position = "completion"
    format: Format = "auto"
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The answer to one `Ask`.

    Attributes:
        items: the items asked for.
        views: the views, the leading axis of `values`.
        offsets: int64[n_items + 1]; item i owns the positions `offsets[i]:offsets[i + 1]`.
        values: for each reducer float64[V, P], a scalar a view and position; nats, probabilities or ranks.
        base_logprob: float64[P], log-prob in nats of the target under the base; NaN where there is no target.
    """

    items: tuple[TextItem, ...]
    views: tuple[View, ...]
    offsets: npt.NDArray[np.int64]
    values: Mapping[str, npt.NDArray[np.float64]]
    base_logprob: npt.NDArray[np.float64]

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Scored positions of each item, int64[n_items]."""
        return np.diff(self.offsets)

    def item_sums(self, reducer: Reducer) -> npt.NDArray[np.float64]:
        """Sum of a reducer over the positions of each item, float64[V, n_items]; every item has a position."""
        sums: npt.NDArray[np.float64] = np.add.reduceat(self.values[reducer], self.offsets[:-1], axis=1)
        return sums

    def per_token(self, reducer: Reducer) -> npt.NDArray[np.float64]:
        """Token-weighted mean over all items, float64[V]."""
        total: npt.NDArray[np.float64] = self.item_sums(reducer).sum(axis=1)
        mean: npt.NDArray[np.float64] = total / self.tokens.sum()
        return mean


@dataclass(frozen=True, slots=True)
class Write:
    """Prompts to continue under views; the base writes only if it is among them.

    Attributes:
        prompts: texts, or conversations that the model's chat template renders.
        views: whose continuations, in the order of the answer's leading axis.
        max_new_tokens: at most so many tokens a text.
        temperature: 0 for the most probable token at each step, else what logits are divided by.
        top_p: draw from the smallest set of tokens that holds this much probability.
        seed: of the draws; the k-th of several equal prompts gets draws of its own.
        format: how prompts given as text are rendered.
        tools: tools that are offered in every prompt; they need a chat template.
    """

    prompts: tuple[str, ...] | tuple[Messages, ...]
    views: tuple[View, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    format: Format = "auto"
    tools: Tools | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to one `Write`.

    Attributes:
        ask: what was asked.
        texts: `texts[v][i]`, what view v wrote after prompt i, special tokens left out.
        n_tokens: int64[V, n], tokens written; a stop token counts.
        stopped: bool[V, n], whether the model ended the text (else the limit did).
    """

    ask: Write
    texts: tuple[tuple[str, ...], ...]
    n_tokens: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.bool_]
