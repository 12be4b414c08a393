"""Second halves behind first halves: which are read, and what the answers say of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.halves import halves, tail
from dlm_sway.probes.inputs import shown
from dlm_sway.stats.standardise import ExpectedGain, expected_gain

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Section:
    """A section in two halves, the second with the space between them in front, or as the texts it is made of."""

    label: str
    first: str
    second: str
    texts: tuple[TextItem, ...] = ()

    def behind(self, other: Section) -> TextItem:
        """Return this section's second half behind the first half of `other`."""
        name = self.label if other is self else f"{self.label} behind {other.label}"
        return TextItem(other.first, self.second, self.label, name)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which sections are read, and which of them exchange first halves.

    Attributes:
        sections: in the order of the spec.
        groups: indices of the sections of each group.
        dropped: label and reason of those that are not read.
    """

    sections: tuple[Section, ...]
    groups: tuple[tuple[int, ...], ...]
    dropped: tuple[dict[str, str], ...]

    @property
    def ordered(self) -> list[Section]:
        """The sections, group after group."""
        return [self.sections[i] for group in self.groups for i in group]

    @property
    def cells(self) -> tuple[TextItem, ...]:
        """Group after group, row after row: the second half of `t` behind the first half of `s`."""
        return tuple(self.sections[t].behind(self.sections[s]) for g in self.groups for s in g for t in g)


def layout(items: Sequence[TextItem], *, most: int, group: int, context: int, rng: np.random.Generator) -> Layout:
    """Return what is read of sections: a choice by the seed alone, so the adapter and its nulls stay exchangeable.

    Args:
        items: the sections; where they have a prompt, it is the first half.
        most: sections that are read at most.
        group: sections that exchange their first halves, at most; one more where one would be left over.
        context: characters of a first half at most.
        rng: for the choice and the groups.
    """
    kept: dict[tuple[str, str], Section] = {}
    dropped: list[dict[str, str]] = []
    for item in items:
        parts = (item.prompt, item.completion) if item.prompt else halves(item.completion)
        if parts is None or not parts[1].strip():
            why = "it has no two halves"
        elif parts in kept:
            why = f"the same text as {shown(kept[parts].label, limit=40)}"
        else:
            kept[parts] = Section(item.label, tail(parts[0], context), parts[1])
            continue
        dropped.append({"label": shown(item.label), "why": why})
    sections = list(kept.values())
    chosen = sorted(rng.permutation(len(sections))[:most].tolist())
    left_out = set(range(len(sections))) - set(chosen)
    dropped += [{"label": shown(sections[i].label), "why": f"not among the {most} drawn"} for i in sorted(left_out)]
    n = len(chosen)
    n_groups = max(1, min(-(-n // group), n // 2))  # a section alone has nothing to exchange
    parted = np.array_split(rng.permutation(n), n_groups)
    groups = tuple(tuple(sorted(int(i) for i in part)) for part in parted if part.size)
    return Layout(tuple(sections[i] for i in chosen), groups, tuple(dropped[:200]))


@dataclass(frozen=True, slots=True)
class Cells:
    """Gains of all pairs that were read.

    Attributes:
        labels: of the sections, in the layout's order.
        gains: f64[b, b] for each group, nats; row: whose first half, column: whose second half.
        excess: the same beyond what control tokens as hard would have gained.
        sizes: int64[b, b] for each group, tokens scored.
        own: for each section, in the layout's order, float64[n] gains of the tokens of its second half behind its own
            first half, nats; more of them than the matrix has.
        own_logprobs: their log-probs under the base, nats.
        expected: the gain of a control token by its difficulty.
        groups: as in the layout.
    """

    labels: tuple[str, ...]
    gains: tuple[F64, ...]
    excess: tuple[F64, ...]
    sizes: tuple[I64, ...]
    own: tuple[F64, ...]
    own_logprobs: tuple[F64, ...]
    expected: ExpectedGain
    groups: tuple[tuple[int, ...], ...]

    @property
    def own_gain(self) -> F64:
        """Gain of each section behind its own first half, nats, float64[S]."""
        return np.array([x.sum() for x in self.own])

    @property
    def own_tokens(self) -> I64:
        """Tokens of it, int64[S]."""
        return np.array([x.size for x in self.own], dtype=np.int64)

    @property
    def tokens_by_block(self) -> I64:
        """Tokens of each own cell of the matrix, group after group, int64[S]."""
        return np.concatenate([size.diagonal() for size in self.sizes])

    def own_minus_others(self) -> float:
        """Own gain minus the mean of the others, nat per token, whatever the difficulty."""
        rate = [g / n for g, n in zip(self.gains, self.sizes, strict=True)]
        apart = [r.diagonal() - (r.sum(axis=0) - r.diagonal()) / (len(r) - 1) for r in rate]
        return float(np.concatenate(apart).mean())

    def table(self, most: int) -> list[list[float | None]]:
        """Return the first rows and columns of the matrix, nat per token; None where a pair was not read."""
        n = sum(map(len, self.groups))
        whole: list[list[float | None]] = [[None] * n for _ in range(n)]
        begin = 0
        for gains, sizes in zip(self.gains, self.sizes, strict=True):
            for s, row in enumerate((gains / sizes).tolist()):
                whole[begin + s][begin : begin + len(row)] = row
            begin += len(gains)
        return [row[:most] for row in whole[:most]]


def cells_of(drawn: Layout, own: Scores, matrix: Scores, control: Scores) -> Cells:
    """Return the answers: of each section behind its own first half, and of all pairs that were read."""
    expected = expected_gain(control.base_logprob, control.values["gain"][0])
    by_token = matrix.values["gain"][0]
    excess = by_token - expected.at(matrix.base_logprob)
    starts = matrix.offsets[:-1]
    tables = []
    begin = 0
    for group in drawn.groups:
        b = len(group)
        part = slice(begin, begin + b * b)
        begin = part.stop
        sums = (np.add.reduceat(x, starts)[part].reshape(b, b) for x in (by_token, excess))
        tables.append((*sums, matrix.tokens[part].reshape(b, b)))
    gains, beyond, sizes = zip(*tables, strict=True)
    return Cells(
        labels=tuple(s.label for s in drawn.sections),
        gains=gains,
        excess=beyond,
        sizes=sizes,
        own=tuple(np.split(own.values["gain"][0], own.offsets[1:-1])),
        own_logprobs=tuple(np.split(own.base_logprob, own.offsets[1:-1])),
        expected=expected,
        groups=drawn.groups,
    )
