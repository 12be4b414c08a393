"""Grows rows token by token: what a step reads, which rows are done, which rows stay in the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.core.views import View
from dlm_sway.engine.kv_cache import Rows, left_padded
from dlm_sway.engine.sources import Source

Ids: TypeAlias = npt.NDArray[np.int64]
Pick: TypeAlias = Callable[[Tensor, Ids], Ids]


@runtime_checkable
class ModelSource(Source, Protocol):
    """A source that can show views on a transformers model.

    Attributes:
        model: the causal LM.
    """

    model: Any

    def showing(self, views: Sequence[View]) -> AbstractContextManager[None]:
        """Let the model read view-major rows inside the block, row group v computing `views[v]`.

        A source that does not stack shows one view at a time.
        """
        ...


class Stepper(Protocol):
    """A batch of rows that grow by one token a step.

    Attributes:
        view_tokens: tokens read so far, counted once a view; padding included.
    """

    view_tokens: int

    def logits(self) -> Tensor:
        """Return what follows each row, [R, K]."""
        ...

    def append(self, tokens: Ids) -> None:
        """Add a token to each row, int64[R]."""
        ...

    def select(self, rows: Ids) -> None:
        """Keep only these rows, view-major, equally many of each view."""
        ...


class CachedStepper:
    """Reads each token once and continues from a KV cache."""

    def __init__(self, source: ModelSource, views: Sequence[View], prompts: Sequence[Ids], *, max_length: int) -> None:
        """Start a row for each view and prompt, view-major; use it in a with-block."""
        self.view_tokens = 0
        self._source, self._views = source, tuple(views)
        self._view_of = np.repeat(np.arange(len(views)), len(prompts))
        ids, mask = left_padded(prompts, source.device)
        self._next = ids.repeat(len(views), 1), mask.repeat(len(views), 1)
        self._rows = Rows(source.model, max_length=max_length)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Show all views."""
        self._stack.enter_context(self._source.showing(self._views))
        return self

    def __exit__(self, *exc: object) -> None:
        """Put the model back as it was."""
        self._stack.close()

    def logits(self) -> Tensor:
        """Return what follows each row, [R, K]."""
        self.view_tokens += self._next[0].numel()
        return self._rows.next_logits(*self._next)

    def append(self, tokens: Ids) -> None:
        """Add a token to each row, int64[R]."""
        ids = torch.from_numpy(tokens).to(self._source.device)[:, None]
        self._next = ids, torch.ones_like(ids)

    def select(self, rows: Ids) -> None:
        """Keep only these rows, view-major, equally many of each view."""
        index = torch.from_numpy(rows).to(self._source.device)
        self._rows = self._rows.select(index)
        self._next = self._next[0][index], self._next[1][index]
        self._view_of = self._view_of[rows]
        left = np.unique(self._view_of)
        if left.size < len(self._views):
            self._views = tuple(self._views[v] for v in left)
            self._view_of = np.searchsorted(left, self._view_of)
            self._stack.close()
            self._stack.enter_context(self._source.showing(self._views))


class WholeStepper:
    """Reads whole rows again at every step, a view at a time: for models whose cache cannot be continued."""

    def __init__(self, source: Source, views: Sequence[View], prompts: Sequence[Ids]) -> None:
        """Start a row for each view and prompt, view-major; use it in a with-block."""
        self.view_tokens = 0
        self._source = source
        self._rows = [(view, prompt) for view in views for prompt in prompts]

    def __enter__(self) -> Self:
        """Do nothing: a source shows its views itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        """Do nothing."""

    def logits(self) -> Tensor:
        """Return what follows each row, [R, K]."""
        views = dict.fromkeys(view for view, _ in self._rows)
        return torch.cat([self._of(view, [r for v, r in self._rows if v == view]) for view in views])

    def append(self, tokens: Ids) -> None:
        """Add a token to each row, int64[R]."""
        self._rows = [(v, np.append(row, token)) for (v, row), token in zip(self._rows, tokens, strict=True)]

    def select(self, rows: Ids) -> None:
        """Keep only these rows."""
        self._rows = [self._rows[i] for i in rows]

    def _of(self, view: View, rows: list[Ids]) -> Tensor:
        ids = np.zeros((len(rows), max(len(r) for r in rows)), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        keep = np.array([(i, len(r) - 1) for i, r in enumerate(rows)], dtype=np.int64)
        self.view_tokens += ids.size
        device = self._source.device
        # A source computes the base in any case; it comes first.
        views = () if view.lam == 0.0 else (view,)
        blocks = self._source.blocks(torch.from_numpy(ids).to(device), torch.from_numpy(keep).to(device), views)
        return torch.cat([logits[-1] for _, logits in blocks])


def decode(stepper: Stepper, view_of: Ids, *, limits: Ids, stops: frozenset[int], pick: Pick) -> list[list[int]]:
    """Return the tokens of every row, a stop token included.

    Args:
        stepper: the rows.
        view_of: int64[R], the view of each row, view-major.
        limits: int64[R], how many tokens a row may get; at least 1.
        stops: tokens that end a row.
        pick: picks int64[r] tokens from logits [r, K] of the rows int64[r].
    """
    out: list[list[int]] = [[] for _ in view_of]
    rows, alive = np.arange(len(view_of)), np.ones(len(view_of), dtype=bool)
    stop = np.array(sorted(stops), dtype=np.int64)
    while True:
        tokens = pick(stepper.logits(), rows)
        for i in np.flatnonzero(alive):
            out[rows[i]].append(int(tokens[i]))
        full = np.array([len(out[r]) for r in rows]) >= limits[rows]
        alive = alive & ~full & ~np.isin(tokens, stop)
        if not alive.any():
            return out
        stepper.append(tokens)
        if (kept := compaction(view_of[rows], alive)) is not None:
            stepper.select(kept)
            rows, alive = rows[kept], alive[kept]


def compaction(view_of: Ids, alive: npt.NDArray[np.bool_]) -> Ids | None:
    """Return the rows to keep, in order, when that halves the batch; None when it does not pay.

    Rows stay view-major with equally many of each view, so views with fewer live rows keep finished ones.

    Args:
        view_of: int64[R], the view of each row, view-major.
        alive: bool[R], at least one.
    """
    views, live = np.unique(view_of[alive], return_counts=True)
    height = int(live.max())
    if 2 * height * len(views) > len(view_of):
        return None
    kept = []
    for view in views:
        mine = np.flatnonzero(view_of == view)
        kept.append(np.sort(mine[np.argsort(~alive[mine], kind="stable")][:height]))
    return np.concatenate(kept)
