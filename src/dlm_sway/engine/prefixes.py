"""Which rows begin alike, so that what they share is read once: many completions, options or answers to one prompt.

No torch: a plan is a pure function of the rows. Sorted rows form a tree of common prefixes; from its leaves upwards,
each node either keeps what its parts do alone or joins them into one cluster, whichever reads fewer tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dlm_sway.engine.rows import Row
from dlm_sway.engine.widths import padded

_SHORTEST = 8  # tokens; a shorter prefix is not worth its place in another pass
_PASSES = 8  # rows of a cluster that fill so many passes are worth reading its prefix again
_PASS_TOKENS = 128  # view-tokens; two to three times what could be read in the fixed time of a pass


@dataclass(frozen=True, slots=True)
class Cluster:
    """Rows that share their first `length` tokens, none of which has a wanted logit."""

    length: int
    rows: tuple[Row, ...]

    @property
    def width(self) -> int:
        """Canonical width of the prefix.

        At least one token of it is padding: a batch of prefixes without any would be read without a mask, and what one
        of them gives must not depend on the others.
        """
        return padded(self.length + 1)

    @property
    def longest(self) -> int:
        """Canonical width of the longest row behind the prefix."""
        return padded(max(len(r.ids) for r in self.rows) - self.length)


@dataclass(slots=True)
class _Node:
    """A common prefix of `length` tokens, and the parts of the tree that begin with it."""

    length: int
    parts: list[_Best]


@dataclass(slots=True)
class _Best:
    """The best plan of one part of the tree.

    Attributes:
        rows: indices of all its rows.
        saved: tokens that the plan does not read again.
        clusters: (length, rows) of each cluster.
    """

    rows: list[int]
    saved: int = 0
    clusters: list[tuple[int, list[int]]] = field(default_factory=list)


def share(rows: Sequence[Row], *, n_views: int) -> tuple[list[Cluster], list[Row]]:
    """Return the clusters that pay and the rows that stay alone; every row is in one of the two.

    Args:
        rows: distinct rows.
        n_views: how many views read them, the base included.
    """
    order = sorted(range(len(rows)), key=lambda i: (_head(rows[i]).tobytes(), rows[i].key))
    best = _plan([rows[i] for i in order])
    if best.saved * n_views < _PASS_TOKENS:
        return [], list(rows)
    clusters = [
        Cluster(n, tuple(sorted((rows[order[i]] for i in c), key=lambda r: (len(r.ids), r.key))))
        for n, c in best.clusters
    ]
    clustered = {order[i] for _, members in best.clusters for i in members}
    return clusters, [row for i, row in enumerate(rows) if i not in clustered]


def fit(clusters: Sequence[Cluster], *, n_views: int, batch_tokens: int) -> Iterator[tuple[Cluster, ...]]:
    """Yield clusters with prefixes of one width that together stay within `batch_tokens`; a larger one comes alone.

    A cluster is cut only where its rows fill many passes: then reading its prefix again costs little, and results
    come at a steady pace.
    """
    parts = [p for c in clusters for p in _cut(c, _PASSES * batch_tokens // n_views)]
    part: list[Cluster] = []
    for cluster in sorted(parts, key=lambda c: (c.width, c.longest, c.rows[0].key)):
        if part and (cluster.width != part[0].width or n_views * tokens([*part, cluster]) > batch_tokens):
            yield tuple(part)
            part = []
        part.append(cluster)
    if part:
        yield tuple(part)


def _cut(cluster: Cluster, most: int) -> Iterator[Cluster]:
    """Yield parts that have at most `most` tokens behind the prefix."""
    begin = 0
    for end, row in enumerate(cluster.rows):  # rows come sorted, so the newest is the longest
        if end > begin and (end + 1 - begin) * padded(len(row.ids) - cluster.length) > most:
            yield Cluster(cluster.length, cluster.rows[begin:end])
            begin = end
    yield Cluster(cluster.length, cluster.rows[begin:])


def tokens(clusters: Sequence[Cluster]) -> int:
    """Return the tokens that one view reads: every prefix once and every rest once, at canonical widths."""
    return sum(c.width + sum(padded(len(r.ids) - c.length) for r in c.rows) for c in clusters)


def _head(row: Row) -> npt.NDArray[np.int64]:
    """Return the part that may be shared: at the first wanted logit a row must be read itself."""
    return row.ids[: row.first]


def _plan(rows: Sequence[Row]) -> _Best:
    """Return the best plan of rows sorted by their heads, walking the tree of common prefixes with a stack."""
    if not rows:
        return _Best([])
    open_nodes: list[_Node] = []
    for i in range(1, len(rows)):
        length = _common(_head(rows[i - 1]), _head(rows[i]))
        last = _closed(open_nodes, _Best([i - 1]), length)
        if open_nodes and open_nodes[-1].length == length:
            open_nodes[-1].parts.append(last)
        else:
            open_nodes.append(_Node(length, [last]))
    return _closed(open_nodes, _Best([len(rows) - 1]), -1)


def _closed(open_nodes: list[_Node], last: _Best, length: int) -> _Best:
    """Close all nodes longer than `length` and return the plan of what they held, `last` included."""
    while open_nodes and open_nodes[-1].length > length:
        node = open_nodes.pop()
        node.parts.append(last)
        last = _decided(node)
    return last


def _decided(node: _Node) -> _Best:
    joined = [p for p in node.parts if len(p.rows) * node.length > p.saved]
    members = [i for p in joined for i in p.rows]
    saved = (len(members) - 1) * node.length
    best = _Best([i for p in node.parts for i in p.rows])
    if node.length >= _SHORTEST and saved > sum(p.saved for p in joined):
        best.clusters.append((node.length, members))
        best.saved = saved
        left = [p for p in node.parts if not len(p.rows) * node.length > p.saved]
    else:
        left = node.parts
    best.saved += sum(p.saved for p in left)
    best.clusters += [c for p in left for c in p.clusters]
    return best


def _common(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if differ.size else n
