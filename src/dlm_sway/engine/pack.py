"""Packs the rows that are needed into chunks of a token budget, and halves a chunk that did not fit into memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeAlias

from dlm_sway.core.views import View
from dlm_sway.engine.ask import Reducer
from dlm_sway.engine.prefixes import Cluster, fit, share
from dlm_sway.engine.rows import Row
from dlm_sway.engine.widths import padded

Key: TypeAlias = tuple[bytes, int, int, int]
"""Identity of a row."""

_Part: TypeAlias = tuple[tuple[Row, ...], int]
"""Rows, and how many tokens one view reads at least; 0 where the part can still be made smaller."""


@dataclass(slots=True)
class Need:
    """A row and everything asked of it."""

    row: Row
    views: dict[View, None] = field(default_factory=dict)  # an ordered set
    reducers: set[Reducer] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that go through the model together, with the views they need besides the base.

    Rows that are read whole have one canonical width, and so have the heads of rows that are not; what stands behind a
    head is read in passes of one width each.

    Attributes:
        rows: what is read.
        views: the views besides the base.
        reducers: the scalars wanted.
    """

    rows: tuple[Row, ...]
    views: tuple[View, ...]
    reducers: tuple[Reducer, ...]

    @property
    def shares(self) -> bool:
        """Whether rows are read behind heads."""
        return self.rows[0].head > 0

    @property
    def width(self) -> int:
        """Canonical width of the longest row."""
        return padded(max(len(r.ids) for r in self.rows))

    @property
    def view_tokens(self) -> int:
        """Tokens read, counted once a view, padding to canonical widths included."""
        if not self.shares:
            return (1 + len(self.views)) * sum(padded(len(r.ids)) for r in self.rows)
        heads = {r.ids[: r.head].tobytes(): padded(r.head + 1) for r in self.rows}
        rest = sum(padded(len(r.ids) - r.head) for r in self.rows)
        return (1 + len(self.views)) * (sum(heads.values()) + rest)

    def halves(self) -> tuple[Chunk, ...]:
        """Return two chunks with half the rows each, or of a single row half the views; nothing if it has one view."""
        if len(self.rows) > 1:
            middle = len(self.rows) // 2
            ends = (slice(middle), slice(middle, None))
            return tuple(replace(self, rows=self.rows[end]) for end in ends)
        if len(self.views) > 1:
            middle = len(self.views) // 2
            return replace(self, views=self.views[:middle]), replace(self, views=self.views[middle:])
        return ()


def heads(needs: Iterable[Need], *, stacks: bool, shares: Callable[[], bool]) -> Mapping[Key, int]:
    """Return how many leading tokens of each row are read once for all rows that have them, 0 for none.

    Asked about all that a round needs, and not about what a cache left to do, so that it depends on nothing else.

    Args:
        needs: rows that are read whole as yet, with everything asked of them.
        stacks: whether the views of a chunk are one pass.
        shares: whether rows can be read behind heads; asked only where that pays.
    """
    found: dict[Key, int] = {}
    for (views, _), rows in _groups(needs).items():
        found |= dict.fromkeys((r.key for r in rows), 0)
        clusters, _ = share(rows, n_views=1 + len(views) if stacks else 1)
        if clusters and shares():
            found |= {r.key: c.length for c in clusters for r in c.rows}
    return found


def pack(
    needs: Iterable[Need],
    *,
    batch_tokens: int,
    views_per_pass: Callable[[Sequence[View]], int],
    stacks: bool,
) -> Iterator[Chunk]:
    """Group rows that need the same views by width and cut them to the token budget.

    Args:
        needs: what to compute.
        batch_tokens: tokens a pass, about.
        views_per_pass: how many of these views can be held ready at once; all rows pass under one such part of the
            views before the next part is made.
        stacks: whether the views of a chunk are one pass, so that each costs its tokens; else they follow each other.
    """
    for (views, reducers), rows in _groups(needs).items():
        alone = sorted((r for r in rows if not r.head), key=lambda r: (padded(len(r.ids)), r.key))
        clusters = _clusters(r for r in rows if r.head)
        for some in (few for kin in _kin(views) for few in split(kin, views_per_pass(kin))):
            n_views = 1 + len(some) if stacks else 1
            parts = [_whole(part) for part in _fit(alone, n_views, batch_tokens)]
            parts += [_joined(part) for part in fit(clusters, n_views=n_views, batch_tokens=batch_tokens)]
            for part, least in parts:
                # What exceeds the budget alone under many views is read under fewer views at a time.
                room = max(1, batch_tokens // least - 1) if stacks and least else len(some)
                yield from (Chunk(part, few, reducers) for few in split(some, room))


def pack_rows(needs: Iterable[Need], *, n_rows: int) -> Iterator[Chunk]:
    """Group rows that need the same views, whatever their widths, at most `n_rows` at a time: nothing is padded."""
    for (views, reducers), rows in _groups(needs).items():
        for begin in range(0, len(rows), n_rows):
            yield Chunk(tuple(rows[begin : begin + n_rows]), views, reducers)


def _groups(needs: Iterable[Need]) -> dict[tuple[tuple[View, ...], tuple[Reducer, ...]], list[Row]]:
    groups: dict[tuple[tuple[View, ...], tuple[Reducer, ...]], list[Row]] = defaultdict(list)
    for need in needs:
        groups[tuple(need.views), tuple(sorted(need.reducers))].append(need.row)
    return groups


def _clusters(rows: Iterable[Row]) -> list[Cluster]:
    by_head: dict[bytes, list[Row]] = defaultdict(list)
    for row in rows:
        by_head[row.ids[: row.head].tobytes()].append(row)
    return [Cluster(c[0].head, tuple(sorted(c, key=lambda r: (len(r.ids), r.key)))) for c in by_head.values()]


def _kin(views: tuple[View, ...]) -> list[tuple[View, ...]]:
    """Part views by whether they share the adapter's first factor: a product with one matrix for all views rounds
    unlike a product with one matrix a view, so what else is in a pass must not decide between the two."""  # noqa: D205, D209 (one sentence)
    parts = [tuple(v for v in views if (v.kind == "gaussian") is own) for own in (False, True)]
    return [part for part in parts if part] or [()]


def split(views: tuple[View, ...], size: int) -> Iterator[tuple[View, ...]]:
    """Cut views into as few parts of at most `size` as will do, of like size; one empty part if there are none."""
    n_parts = max(1, -(-len(views) // max(1, size)))
    bounds = [len(views) * i // n_parts for i in range(n_parts + 1)]
    yield from (views[a:b] for a, b in pairwise(bounds))


def _fit(rows: Sequence[Row], n_views: int, batch_tokens: int) -> Iterator[tuple[Row, ...]]:
    part: list[Row] = []
    for row in rows:  # rows come sorted, so equal widths stand together
        width = padded(len(row.ids))
        if part and (width != padded(len(part[0].ids)) or (len(part) + 1) * width * n_views > batch_tokens):
            yield tuple(part)
            part = []
        part.append(row)
    if part:
        yield tuple(part)


def _whole(rows: tuple[Row, ...]) -> _Part:
    return rows, padded(len(rows[0].ids)) if len(rows) == 1 else 0


def _joined(clusters: tuple[Cluster, ...]) -> _Part:
    # Sorted so that rests of one width are read together.
    rows = sorted((r for c in clusters for r in c.rows), key=lambda r: (padded(len(r.ids) - r.head), r.key))
    return tuple(rows), clusters[0].width + clusters[0].longest if len(clusters) == 1 else 0
