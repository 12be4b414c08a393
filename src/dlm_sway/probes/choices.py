"""Questions with options: how a spec gives them, how they are scored, and what both models say to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.facts import facts
from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.stats.calibration import answered_right, option_logprobs

GAP: Final = "{}"
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Choice(BaseModel):
    """A question and its options.

    Attributes:
        prompt: what stands before the options.
        options: two or more distinct ways to go on.
        answer: the right one, word for word.
        category: what the question is about.
        cluster: questions of one cluster vary together; by default each is its own, but for those of one prompt.
        label: how reports name it; several may have the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    options: tuple[str, ...] = Field(min_length=2)
    answer: str
    category: str = "all"
    cluster: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _one_is_right(self) -> Choice:
        stripped = [option.strip() for option in self.options]
        if not all(stripped) or len(set(stripped)) < len(stripped):
            raise BadInputError(f"the options of {self.prompt[:60]!r} are empty or not distinct")
        if self.answer not in self.options:
            raise BadInputError(f"the answer to {self.prompt[:60]!r} is not among its options")
        return self

    @property
    def right(self) -> int:
        """Index of the right option."""
        return self.options.index(self.answer)


def shipped() -> tuple[Choice, ...]:
    """Return the shipped facts."""
    return tuple(
        Choice(prompt=f.prompt, options=f.options, answer=f.options[f.answer], category=f.category, label=f.id)
        for f in facts()
    )


def distinct(choices: Sequence[Choice]) -> tuple[tuple[Choice, ...], list[dict[str, str]]]:
    """Return the questions, each once, and rows that say what was dropped.

    The same words with the same options, in any order, are the same question. With other options they are another one
    that varies together with it.
    """
    kept: dict[tuple[str, frozenset[str]], Choice] = {}
    dropped = []
    taken = {choice.cluster for choice in choices}
    cluster_of: dict[str, str] = {}
    for i, choice in enumerate(choices):
        label, words = choice.label or str(i), " ".join(choice.prompt.split())
        key = words, frozenset(option.strip() for option in choice.options)
        if key in kept:
            dropped.append({"label": label, "why": "the same question again"})
            continue
        if choice.cluster is None and words not in cluster_of:
            cluster_of[words] = words if label in taken else label  # a label may stand for many questions
            taken.add(label)
        kept[key] = choice.model_copy(update={"label": label, "cluster": choice.cluster or cluster_of[words]})
    return tuple(kept.values()), dropped


def option_items(choices: Sequence[Choice], template: str) -> tuple[TextItem, ...]:
    """Return one item an option, in order; `template` says how an option stands behind its prompt."""
    return tuple(
        TextItem(c.prompt, template.replace(GAP, option), c.cluster or "", f"{c.label}/{i}", c.category)
        for c in choices
        for i, option in enumerate(c.options)
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """What base and fine-tune say to some questions.

    Attributes:
        choices: the questions.
        base: float64[n, k], log-prob of each option in full under the base; -inf where a question has fewer options.
        finetuned: float64[n, k], under the fine-tune.
        n_tokens: scored tokens.
    """

    choices: tuple[Choice, ...]
    base: F64
    finetuned: F64
    n_tokens: int

    @property
    def right(self) -> I64:
        """Index of each right option, int64[n]."""
        return np.array([c.right for c in self.choices], dtype=np.int64)

    @property
    def clusters(self) -> list[str]:
        """The cluster of each question."""
        return [c.cluster or "" for c in self.choices]

    @property
    def known(self) -> F64:
        """How well the base knew each answer, float64[n]: its probability beyond chance, 0 at chance, 1 if sure."""
        chance = 1 / np.array([len(c.options) for c in self.choices])
        p = np.exp(option_logprobs(self.base)[np.arange(len(self.choices)), self.right])
        return np.asarray(np.maximum(0.0, (p - chance) / (1 - chance)))

    def flips(self) -> dict[str, int]:
        """Return how many questions both answer right, only the base, only the fine-tune, and neither."""
        before, after = answered_right(self.base, self.right), answered_right(self.finetuned, self.right)
        cells = {"both": before & after, "lost": before & ~after, "won": ~before & after, "neither": ~before & ~after}
        return {name: int(cell.sum()) for name, cell in cells.items()}

    def row(self, i: int) -> dict[str, Any]:
        """Return how a reader is shown a question."""
        c = self.choices[i]
        names = [c.options[int(np.argmax(scores[i]))] for scores in (self.base, self.finetuned)]
        return {"label": c.label, "text": c.prompt[:120], "answer": c.answer[:60]} | {
            who: name[:60] for who, name in zip(("base", "finetuned"), names, strict=True)
        }


def answered(choices: Sequence[Choice], parts: Sequence[Scores], *, normalise: Literal["none", "length"]) -> Answered:
    """Return the grids of the questions read so far, from the scores of their options in the order asked for.

    With `length` an option counts by its mean log-prob a token, else by its sum, which is its probability.
    """
    first = np.concatenate([np.add.reduceat(s.base_logprob, s.offsets[:-1]) for s in parts])
    change = np.concatenate([s.item_sums("gain")[0] for s in parts])
    tokens = np.concatenate([s.tokens for s in parts])
    per = tokens if normalise == "length" else np.ones_like(tokens)
    sizes = np.array([len(c.options) for c in choices])
    read = int(np.searchsorted(np.cumsum(sizes), len(first), side="right"))
    inside = np.arange(int(sizes[:read].max())) < sizes[:read, None]
    base, finetuned = np.full(inside.shape, -np.inf), np.full(inside.shape, -np.inf)
    base[inside], finetuned[inside] = first / per, (first + change) / per
    return Answered(tuple(choices[:read]), base, finetuned, int(tokens.sum()))
