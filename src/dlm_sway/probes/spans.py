"""Spans of a data set: drawn evenly over its documents, and read as how probable each is word for word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.engine.ask import Reducer, Scores, Span, TextItem
from dlm_sway.probes.inputs import shown, tokens_about, words_of

SHORTEST: Final = 16
"""Scored tokens; a shorter piece is guessed by any model that knows the language."""
REDUCERS: Final[frozenset[Reducer]] = frozenset({"gain", "rank", "base_rank"})
Bools = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]


def draw_spans(items: Sequence[TextItem], span: Span, *, most: int, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return at most `most` spans of the documents in a random order, so that any beginning is a sample of them.

    Each document gives one span, a long one more, in proportion to its length and spread evenly over it; where there
    are more documents than spans, those that give one are drawn. An item with a prompt or a conversation gives one
    span: its completion. A document that stands there twice counts once.
    """
    unique = list({words_of(item): item for item in items}.values())
    if len(unique) > most:
        unique = [unique[i] for i in np.sort(rng.permutation(len(unique))[:most])]
    size = span.given + span.scored
    room = np.array([0 if is_reply(i) else max(0, tokens_about(i) // size - 1) for i in unique])
    spare = most - len(unique)
    more = room if room.sum() <= spare else np.floor(spare * room / room.sum()).astype(np.int64)
    drawn = [
        replace(item, label=f"{item.label}[{j}]", at=_at(j, n, rng))
        for item, n in zip(unique, (1 + more).tolist(), strict=True)
        for j in range(n)
    ]
    return tuple(drawn[i] for i in rng.permutation(len(drawn)))


def is_reply(item: TextItem) -> bool:
    """Return whether something stands before an item's text, so that its span is the beginning of it."""
    return bool(item.prompt or item.messages)


def _at(j: int, n: int, rng: np.random.Generator) -> float:
    return float((j + rng.random()) / n)


@dataclass(frozen=True, slots=True)
class Recited:
    """How probable spans are word for word.

    Attributes:
        items: the spans.
        base: float64[n], log-prob of each span under the base, nats.
        finetuned: float64[n], under the fine-tune.
        base_greedy: bool[n], whether the base's most probable tokens are the span.
        greedy: bool[n], the same for the fine-tune.
        tokens: int64[n], tokens scored.
        dropped: spans left out, with the reason.
    """

    items: tuple[TextItem, ...]
    base: F64
    finetuned: F64
    base_greedy: Bools
    greedy: Bools
    tokens: npt.NDArray[np.int64]
    dropped: tuple[dict[str, str], ...]

    def __len__(self) -> int:
        """Return the number of spans."""
        return len(self.items)

    @property
    def n_documents(self) -> int:
        """Documents that the spans are from."""
        return len({words_of(item) for item in self.items})

    def row(self, i: int) -> dict[str, Any]:
        """Return how a reader is shown a span; where it begins in the text is known to a few characters."""
        item = self.items[i]
        begin = 0 if is_reply(item) else int(item.at * max(0, len(item.completion) - 6 * int(self.tokens[i])))
        return {
            "label": item.label,
            "base": float(self.base[i]),
            "tokens": int(self.tokens[i]),
            "text": shown(item.completion[begin : begin + 1000]),
        }


def recited(parts: Sequence[Scores]) -> Recited:
    """Return what the scores say of each span; a span of fewer than `SHORTEST` tokens is dropped."""
    items = tuple(item for s in parts for item in s.items)
    base = np.concatenate([np.zeros(0), *(np.add.reduceat(s.base_logprob, s.offsets[:-1]) for s in parts)])
    change = np.concatenate([np.zeros(0), *(s.item_sums("gain")[0] for s in parts)])
    tokens = np.concatenate([np.zeros(0, dtype=np.int64), *(s.tokens for s in parts)])
    base_greedy, greedy = (
        np.concatenate([np.zeros(0, dtype=bool), *(_all_first(s, name) for s in parts)]) for name in _RANKS
    )
    kept = tokens >= SHORTEST
    short = [
        {"label": items[i].label, "why": f"scored tokens: {tokens[i]}, too few to tell"} for i in np.flatnonzero(~kept)
    ]
    return Recited(
        items=tuple(item for item, keep in zip(items, kept, strict=True) if keep),
        base=base[kept],
        finetuned=(base + change)[kept],
        base_greedy=base_greedy[kept],
        greedy=greedy[kept],
        tokens=tokens[kept],
        dropped=tuple(short),
    )


_RANKS: Final[tuple[Reducer, Reducer]] = ("base_rank", "rank")


def _all_first(scores: Scores, name: Reducer) -> Bools:
    first = scores.values[name][0] == 1
    return np.asarray(np.logical_and.reduceat(first, scores.offsets[:-1]))


def extractable(logprobs: F64, *, tries: float, chance: float) -> Bools:
    """Return which spans come out at least once in `tries` samples with probability `chance` or more.

    1 - (1 - P)^tries >= chance with P = exp(log-prob), the (n, p)-discoverable extraction of Hayes et al. (2025),
    "Measuring memorization in language models via probabilistic extraction".
    """
    return np.asarray(logprobs >= math.log(-math.expm1(math.log1p(-chance) / tries)))
