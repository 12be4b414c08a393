"""Answers asks: one token table for all of them, de-duplicated, sorted by length, packed into chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.backends.base import BulkBackend
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.core.views import View
from dlm_sway.engine.ask import Ask, Reducer, Scores
from dlm_sway.engine.cpu_linear import fast_linears
from dlm_sway.engine.reduce import reduce_block
from dlm_sway.engine.rows import Row, rows_of
from dlm_sway.engine.sources import Source, open_source

BATCH_TOKENS = 2048  # view-tokens a chunk; a GEMM of this height is within 5 % of its peak rate on 2 cores

_Key = tuple[bytes, int, int]
_Values = dict[str, npt.NDArray[np.float32]]


@dataclass(slots=True)
class _Need:
    """A row and everything asked of it."""

    row: Row
    views: dict[View, None] = field(default_factory=dict)  # an ordered set
    reducers: set[Reducer] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows that go through the model together, with the views they need."""

    rows: tuple[Row, ...]
    views: tuple[View, ...]
    reducers: tuple[Reducer, ...]

    @property
    def view_tokens(self) -> int:
        """Tokens read, counted once a view; padding included."""
        return (1 + len(self.views)) * len(self.rows) * max(len(r.ids) for r in self.rows)


class Engine:
    """Runs the model in bulk, once for all probes, and remembers per-position results for later rounds."""

    def __init__(
        self, backend: BulkBackend, *, batch_tokens: int | None = None, progress: Progress | None = None
    ) -> None:
        """Drive `backend`; a chunk holds about `batch_tokens` view-tokens."""
        self.backend = backend
        self.batch_tokens = batch_tokens or BATCH_TOKENS
        self.progress: Progress = progress or Silent()
        self.view_tokens_done = 0
        self._source: Source | None = None
        self._planned = 0
        self._memory: dict[tuple[_Key, View, Reducer], npt.NDArray[np.float32]] = {}
        self._base: dict[_Key, npt.NDArray[np.float32]] = {}

    @property
    def path(self) -> str:
        """How the views are computed: `stacked`, `view by view`, or empty before the first answer."""
        return self._source.name if self._source else ""

    def answer(self, asks: Sequence[Ask]) -> list[Scores]:
        """Return the scores of each ask, in order.

        Raises:
            BadInputError: an item holds nothing to score.
            CannotRunError: the model gave a number that is not finite, or ran out of memory on a single row.
        """
        table = [[rows_of(item, ask, self.backend.codec) for item in ask.items] for ask in asks]
        chunks = list(_pack(self._missing(asks, table), self.batch_tokens))
        if chunks:
            self._planned += sum(c.view_tokens for c in chunks)
            with self.opened() as source:
                for chunk in chunks:
                    self._run(chunk, source)
        return [self._collect(ask, rows) for ask, rows in zip(asks, table, strict=True)]

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """Hold the backend for bulk work; opened once, kept for the engine's life."""
        with self.backend.exclusive(), fast_linears(getattr(self.backend, "model", None)):
            self._source = self._source or open_source(self.backend)
            yield self._source

    def _missing(self, asks: Sequence[Ask], table: list[list[tuple[Row, ...]]]) -> dict[_Key, _Need]:
        needs: dict[_Key, _Need] = {}
        for ask, items in zip(asks, table, strict=True):
            for row in (r for rows in items for r in rows):
                for view in ask.views:
                    absent = [r for r in ask.reducers if (row.key, view, r) not in self._memory]
                    if absent:
                        need = needs.setdefault(row.key, _Need(row))
                        need.views[view] = None
                        need.reducers.update(absent)
        return needs

    def _run(self, chunk: _Chunk, source: Source) -> None:
        width = max(len(r.ids) for r in chunk.rows)
        ids = np.zeros((len(chunk.rows), width), dtype=np.int64)
        for i, row in enumerate(chunk.rows):
            ids[i, : len(row.ids)] = row.ids
        keep = np.concatenate([[(i, p) for p in range(r.first, len(r.ids))] for i, r in enumerate(chunk.rows)])
        target = torch.from_numpy(np.concatenate([r.targets for r in chunk.rows])).to(source.device)
        parts: dict[str, list[torch.Tensor]] = defaultdict(list)
        with torch.inference_mode():
            for block, logits in source.blocks(
                torch.from_numpy(ids).to(source.device), torch.from_numpy(keep).to(source.device), chunk.views
            ):
                for name, value in reduce_block(logits[0], logits[1:], target[block], chunk.reducers).items():
                    parts[name].append(value.cpu())
        self._keep(chunk, {name: torch.cat(values, dim=-1).numpy() for name, values in parts.items()})
        self.view_tokens_done += chunk.view_tokens
        self.progress.work(self.view_tokens_done, self._planned)

    def _keep(self, chunk: _Chunk, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        bounds = np.cumsum([0, *(r.n_scored for r in chunk.rows)])
        for i, row in enumerate(chunk.rows):
            part = slice(bounds[i], bounds[i + 1])
            self._base[row.key] = values["base_logprob"][part]
            for name in chunk.reducers:
                for v, view in enumerate(chunk.views):
                    self._memory[row.key, view, name] = values[name][v, part]

    def _collect(self, ask: Ask, items: list[tuple[Row, ...]]) -> Scores:
        rows = [r for item in items for r in item]
        sizes = [sum(r.n_scored for r in item) for item in items]
        offsets = np.cumsum([0, *sizes]).astype(np.int64)
        base = np.concatenate([self._base[r.key] for r in rows]).astype(np.float64)
        values: dict[str, npt.NDArray[np.float64]] = {}
        for name in sorted(ask.reducers):
            grid = [np.concatenate([self._memory[r.key, v, name] for r in rows]) for v in ask.views]
            values[name] = np.asarray(grid, dtype=np.float64).reshape(len(ask.views), int(offsets[-1]))
            _require_finite(values[name], name, ask)
        return Scores(ask.items, ask.views, offsets, values, base)


def _require_finite(values: npt.NDArray[np.float64], name: str, ask: Ask) -> None:
    allowed = ask.position == "last" and name in ("gain", "rank")
    if not allowed and not np.isfinite(values).all():
        view = ask.views[int(np.argmin(np.isfinite(values).all(axis=1)))]
        raise CannotRunError(
            f"{name} is not finite in {int((~np.isfinite(values)).sum())} places, first under {view}",
            remedy="run `sway inspect`, or use --dtype fp32",
        )


def _pack(needs: dict[_Key, _Need], batch_tokens: int) -> Iterator[_Chunk]:
    """Group rows that need the same views, sort them by length and cut them to the token budget."""
    groups: dict[tuple[tuple[View, ...], tuple[Reducer, ...]], list[Row]] = defaultdict(list)
    for need in needs.values():
        groups[tuple(need.views), tuple(sorted(need.reducers))].append(need.row)
    for (views, reducers), rows in groups.items():
        rows.sort(key=lambda r: (len(r.ids), r.key))
        for part in _fit(rows, 1 + len(views), batch_tokens):
            # A long row under many views may exceed the budget alone: then its views are split.
            room = max(1, batch_tokens // (len(part) * len(part[-1].ids)) - 1)
            step = len(views) if len(part) > 1 else room
            for i in range(0, len(views), step):
                yield _Chunk(part, views[i : i + step], reducers)


def _fit(rows: list[Row], n_views: int, batch_tokens: int) -> Iterator[tuple[Row, ...]]:
    part: list[Row] = []
    for row in rows:  # rows come sorted, so the newest is the longest
        if part and (len(part) + 1) * len(row.ids) * n_views > batch_tokens:
            yield tuple(part)
            part = []
        part.append(row)
    if part:
        yield tuple(part)
