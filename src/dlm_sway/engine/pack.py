"""Packs the rows that are needed into chunks of a token budget, and halves a chunk that did not fit into memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeAlias

from dlm_sway.core.views import View
from dlm_sway.engine.ask import Reducer
from dlm_sway.engine.prefixes import Cluster, fit, share
from dlm_sway.engine.rows import Row

Key: TypeAlias = tuple[bytes, int, int]
"""Identity of a row."""

_Part: TypeAlias = tuple[tuple[Row, ...], tuple[int, ...], int]
"""Rows, their heads, and how many tokens one view reads at least; 0 where the part can still be made smaller."""


@dataclass(slots=True)
class Need:
    """A row and everything asked of it."""

    row: Row
    views: dict[View, None] = field(default_factory=dict)  # an ordered set
    reducers: set[Reducer] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that go through the model together, with the views they need besides the base.

    Attributes:
        rows: what is read.
        views: the views besides the base.
        reducers: the scalars wanted.
        heads: leading tokens of each row that are read once for all rows that have them; empty to read rows whole.
    """

    rows: tuple[Row, ...]
    views: tuple[View, ...]
    reducers: tuple[Reducer, ...]
    heads: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Tokens of the longest row; the others are padded to it."""
        return max(len(r.ids) for r in self.rows)

    @property
    def view_tokens(self) -> int:
        """Tokens read, counted once a view; padding of rows read whole and of heads included."""
        if not self.heads:
            return (1 + len(self.views)) * len(self.rows) * self.width
        pairs = list(zip(self.rows, self.heads, strict=True))
        n_heads = len({r.ids[:n].tobytes() for r, n in pairs})
        rest = sum(len(r.ids) - n for r, n in pairs)
        return (1 + len(self.views)) * (n_heads * max(self.heads) + rest)

    def halves(self) -> tuple[Chunk, ...]:
        """Return two chunks with half the rows each, or of a single row half the views; nothing if it has one view."""
        if len(self.rows) > 1:
            middle = len(self.rows) // 2
            ends = (slice(middle), slice(middle, None))
            return tuple(replace(self, rows=self.rows[end], heads=self.heads[end]) for end in ends)
        if len(self.views) > 1:
            middle = len(self.views) // 2
            return replace(self, views=self.views[:middle]), replace(self, views=self.views[middle:])
        return ()


def pack(
    needs: Iterable[Need],
    *,
    batch_tokens: int,
    views_per_pass: Callable[[Sequence[View]], int],
    stacks: bool,
    shares: Callable[[], bool] = lambda: False,
) -> Iterator[Chunk]:
    """Group rows that need the same views, sort them by length and cut them to the token budget.

    Args:
        needs: what to compute.
        batch_tokens: tokens a pass, about.
        views_per_pass: how many of these views can be held ready at once; all rows pass under one such part of the
            views before the next part is made.
        stacks: whether the views of a chunk are one pass, so that each costs its tokens; else they follow each other.
        shares: whether what rows begin with may be read once for all of them; asked only where that pays.
    """
    groups: dict[tuple[tuple[View, ...], tuple[Reducer, ...]], list[Row]] = defaultdict(list)
    for need in needs:
        groups[tuple(need.views), tuple(sorted(need.reducers))].append(need.row)
    for (views, reducers), rows in groups.items():
        clusters, alone = share(rows, n_views=1 + len(views) if stacks else 1)
        if clusters and not shares():
            clusters, alone = [], rows
        alone.sort(key=lambda r: (len(r.ids), r.key))
        for some in split(views, views_per_pass(views)):
            n_views = 1 + len(some) if stacks else 1
            parts = [_whole(part) for part in _fit(alone, n_views, batch_tokens)]
            parts += [_joined(part) for part in fit(clusters, n_views=n_views, batch_tokens=batch_tokens)]
            for part, heads, least in parts:
                # What exceeds the budget alone under many views is read under fewer views at a time.
                room = max(1, batch_tokens // least - 1) if stacks and least else len(some)
                yield from (Chunk(part, few, reducers, heads) for few in split(some, room))


def split(views: tuple[View, ...], size: int) -> Iterator[tuple[View, ...]]:
    """Cut views into as few parts of at most `size` as will do, of like size; one empty part if there are none."""
    n_parts = max(1, -(-len(views) // max(1, size)))
    bounds = [len(views) * i // n_parts for i in range(n_parts + 1)]
    yield from (views[a:b] for a, b in pairwise(bounds))


def _fit(rows: Sequence[Row], n_views: int, batch_tokens: int) -> Iterator[tuple[Row, ...]]:
    part: list[Row] = []
    for row in rows:  # rows come sorted, so the newest is the longest
        if part and (len(part) + 1) * len(row.ids) * n_views > batch_tokens:
            yield tuple(part)
            part = []
        part.append(row)
    if part:
        yield tuple(part)


def _whole(rows: tuple[Row, ...]) -> _Part:
    return rows, (), len(rows[0].ids) if len(rows) == 1 else 0


def _joined(clusters: tuple[Cluster, ...]) -> _Part:
    pairs = [(row, c.length) for c in clusters for row in c.rows]
    pairs.sort(key=lambda p: (len(p[0].ids) - p[1], p[0].key))  # so that rests of like length are read together
    rows, heads = tuple(row for row, _ in pairs), tuple(length for _, length in pairs)
    return rows, heads, clusters[0].length + clusters[0].longest if len(clusters) == 1 else 0
