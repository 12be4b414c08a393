"""Rows of the same tokens, wanted from different places on: read once, from the first of these places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from dlm_sway.core.views import View
from dlm_sway.engine.ask import Ask
from dlm_sway.engine.rows import Row

Table: TypeAlias = "list[list[tuple[Row, ...]]]"
"""For each ask and item, its rows."""
_Key: TypeAlias = tuple[bytes, int, frozenset[View]]


class Overlaps:
    """The longest reading of each row that was asked for; what was decided stays, so that a later ask finds it.

    Only rows wanted under the same views are joined: one logit more costs a fifth of a token, which is too much to
    add under forty nulls.
    """

    def __init__(self) -> None:
        self._longest: dict[_Key, Row] = {}

    def joined(self, asks: Sequence[Ask], table: Table) -> Table:
        """Return the table with each row read from the first place that any ask wants of it; ends stay."""
        views = [frozenset(ask.views) for ask in asks]
        for some, row in _every(views, table):
            key = _key(row, some)
            if row.n_scored > (self._longest[key].n_scored if key in self._longest else 0):
                self._longest[key] = row
        return [
            [tuple(self._longest[_key(row, some)] for row in rows) for rows in items]
            for some, items in zip(views, table, strict=True)
        ]


def _every(views: Sequence[frozenset[View]], table: Table) -> Iterable[tuple[frozenset[View], Row]]:
    return ((some, row) for some, items in zip(views, table, strict=True) for rows in items for row in rows)


def _key(row: Row, views: frozenset[View]) -> _Key:
    return row.ids.tobytes(), int(row.targets[-1]), views
