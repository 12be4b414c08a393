"""What a probe asks of the engine, and what it gets back. No torch: probes are pure functions of these arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import Format, Messages, Tools
from dlm_sway.core.views import View

Reducer: TypeAlias = Literal["gain", "kl", "kl_rev", "js", "tv", "entropy", "rank", "base_rank", "top1"]
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
        at: where a span begins, of all places where it could: 0 the first, 1 the last. Only a `Span` looks.
        messages: a conversation that is given in the prompt's place, through the model's chat template whatever the
            ask's format; the completion is the reply to it.
    """

    prompt: str
    completion: str
    cluster: str
    label: str
    stratum: str = ""
    at: float = 0.0
    messages: Messages = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text, cut in tokens: some that are given and the ones after them, which are scored.

    A plan has no tokenizer, so it says where a span begins as a share (`TextItem.at`), and rows are cut by tokens. What
    stands before the piece is not read, apart from the special token that the tokenizer begins texts with. A text
    shorter than the whole span is cut in half: its first half is given.

    Attributes:
        given: tokens that are read first.
        scored: tokens after them.
    """

    given: int
    scored: int


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
        span: score a piece of each item instead, which then has no prompt.
    """

    items: tuple[TextItem, ...]
    views: tuple[View, ...]
    reducers: frozenset[Reducer]
    position: Position = "completion"
    format: Format = "auto"
    max_tokens: int | None = None
    span: Span | None = None


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


@dataclass(frozen=True, slots=True)
class Slopes:
    """Texts along whose log-prob the base is differentiated, with respect to each trained factor B at B = 0.

    Attributes:
        items: the texts.
        controls: texts that are subtracted; may be empty.
        format: how prompts are rendered.
        max_tokens: differentiate at most so many tokens of an item, its first ones.
    """

    items: tuple[TextItem, ...]
    controls: tuple[TextItem, ...] = ()
    format: Format = "auto"
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Sloped:
    """The answer to one `Slopes`: what a linear model of the base predicts of the adapter's gain, by module.

    With G the gradient of a log-prob with respect to B at B = 0, the predicted gain of a text is <G, B>. A rotation
    null puts Q' R in the place of B = Q R, so that its predicted gain is <H, Q'> with H = G R^T; its law follows from
    the singular values of H alone.

    Attributes:
        ask: what was asked.
        refusal: why there are no gradients, or None; with a refusal all else is empty.
        modules: names of the modules, M of them.
        left_out: trained tensors that have no part in it.
        d_out: int64[M], outputs of each module.
        items: float64[n, M], <G, B> of each text, nats.
        controls: float64[k, M], the same of the controls.
        tokens: int64[n], tokens that were differentiated.
        control_tokens: int64[k].
        spectra: for `target`, `control` and `difference` (of their gradients per token) a float64[<= r] of singular
            values of H for each module.
    """

    ask: Slopes
    refusal: str | None
    modules: tuple[str, ...]
    left_out: tuple[str, ...]
    d_out: npt.NDArray[np.int64]
    items: npt.NDArray[np.float64]
    controls: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    control_tokens: npt.NDArray[np.int64]
    spectra: Mapping[str, tuple[npt.NDArray[np.float64], ...]]


Request: TypeAlias = Ask | Write | Slopes
"""What a probe may ask of the engine."""
Answer: TypeAlias = Scores | Written | Sloped
"""What it gets back."""
