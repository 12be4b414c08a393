"""Opens a backend for bulk work and computes, for many views of the same tokens, logits at chosen positions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.backends.base import BulkBackend, LogitBackend, ScalarBackend, StackedLogitBackend
from dlm_sway.backends.hf_sites import Sites
from dlm_sway.backends.torch_backend import TorchBackend
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.views import BASE, View
from dlm_sway.engine.factors import FactorStore
from dlm_sway.engine.head import Head
from dlm_sway.engine.kv_cache import continues
from dlm_sway.engine.seats import Seats, find_seats
from dlm_sway.engine.shared import Heads, blocks
from dlm_sway.engine.stacked import agrees, keeps_rows, stacked, supported
from dlm_sway.engine.viewwise import ViewwiseSource

FACTOR_BYTES = 192 * 2**20
_NONE = Seats()
_SHARE = 8  # of the model's weights that factors may take where that is more

Blocks: TypeAlias = Generator[tuple[slice, Tensor], None, None]


class Source(Protocol):
    """A model opened for bulk work.

    Attributes:
        name: how the views are computed, for reports.
        device: where tokens and logits are.
        stacks: whether all views of a call are one pass, so that memory grows with their number.
        window: tokens that a row may have, padding included.
    """

    name: str
    device: torch.device
    stacks: bool
    window: int

    @property
    def continues(self) -> bool:
        """Whether rows can go on from what was read before them."""
        ...

    def views_per_pass(self, views: Sequence[View]) -> int:
        """Return how many of `views` one call should have at most, at least 1."""
        ...

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View], heads: Heads | None = None) -> Blocks:
        """Yield `(block of keep, logits [1 + V, p, K])` of right-padded rows; index 0 is the base.

        The model is not itself between the first block and the last: close the generator, also after an error.

        Args:
            ids: int64[N, L].
            keep: int64[P, 2], (row, position) of each wanted logit.
            views: the views besides the base.
            heads: what stands before the rows, if they share it; only where the source `continues`.
        """
        ...


class StackedSource:
    """All views of a batch in one pass over the base weights."""

    name = "stacked"
    stacks = True

    def __init__(self, backend: TorchBackend, seats: Seats = _NONE) -> None:
        """Use the model that `backend` holds open; `seats` is where it has tensors trained whole."""
        self._backend, self._seats = backend, seats
        self.device = backend.device
        self.window = backend.codec.max_length
        self.model: Any = backend.model.get_base_model()
        self._head = Head(self.model)
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        self._store = FactorStore(max_bytes=max(FACTOR_BYTES, weights // _SHARE))

    def views_per_pass(self, views: Sequence[View]) -> int:
        """Return how many of `views` have factors that can be held at once."""
        dense = [seat.site for seat in self._seats.seats]
        return self._store.views_per_pass(self._backend.sites.low_rank, views, dense)

    @cached_property
    def continues(self) -> bool:
        """Whether the model computes the same from a padded cache as from whole rows."""
        return continues(self.model)

    def showing(self, views: Sequence[View]) -> AbstractContextManager[None]:
        """Let the model read view-major rows inside the block, row group v computing `views[v]`."""
        return stacked(self._backend.sites, views, self._store, self._seats)

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View], heads: Heads | None = None) -> Blocks:
        """Yield logits of the base and `views`, block by block."""
        n_views = 1 + len(views)
        with self.showing((BASE, *views)):
            yield from blocks(self._head, ids, keep, n_views=n_views, heads=heads)


class _InNumpy:
    """A backend that computes its logits itself, in numpy."""

    continues = False
    device = torch.device("cpu")

    def __init__(self, backend: LogitBackend | StackedLogitBackend) -> None:
        self.window = backend.codec.max_length


class ArraySource(_InNumpy):
    """One view at a time."""

    name = "backend"
    stacks = False

    def __init__(self, backend: LogitBackend) -> None:
        """Ask `backend` one view at a time."""
        super().__init__(backend)
        self._backend = backend

    def views_per_pass(self, views: Sequence[View]) -> int:
        """Return all of them."""
        return max(1, len(views))

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View], heads: Heads | None = None) -> Blocks:
        """Yield logits of the base and `views` in one block."""
        assert heads is None  # noqa: S101 (what is packed for a source that cannot go on shares nothing)
        rows: npt.NDArray[np.int64] = ids.numpy()
        parts = [self._backend.logits(rows, keep.numpy(), v) for v in (BASE, *views)]
        yield slice(0, len(keep)), torch.from_numpy(np.stack(parts))


class StackedArraySource(_InNumpy):
    """All views in one pass."""

    name = "stacked"
    stacks = True

    def __init__(self, backend: StackedLogitBackend) -> None:
        """Ask `backend` for all views of a call at once."""
        super().__init__(backend)
        self._backend = backend

    def views_per_pass(self, views: Sequence[View]) -> int:
        """Return how many of `views` the backend takes at once."""
        return max(1, min(len(views), self._backend.views_per_pass()))

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View], heads: Heads | None = None) -> Blocks:
        """Yield logits of the base and `views`, block by block."""
        assert heads is None  # noqa: S101 (what is packed for a source that cannot go on shares nothing)
        for block, logits in self._backend.logit_blocks(ids.numpy(), keep.numpy(), views):
            yield block, torch.from_numpy(logits)


class ScalarSource:
    """A backend that compares views with the base itself and has no logits to give."""

    stacks = False
    continues = False
    device = torch.device("cpu")

    def __init__(self, backend: ScalarBackend) -> None:
        """Ask `backend` for all views of a row at once."""
        self.backend = backend
        self.name = backend.source_name
        self.window = backend.codec.max_length

    def views_per_pass(self, views: Sequence[View]) -> int:
        """Return all of them."""
        return max(1, len(views))

    def blocks(self, *_: Any) -> Blocks:
        """Refuse: there are no logits.

        Raises:
            CannotRunError: always.
        """
        raise CannotRunError(f"{type(self.backend).__name__} gives no logits", remedy="use a backend of kind hf")


def open_source(backend: BulkBackend) -> Source:
    """Return the fastest way to drive a backend, chosen by what its adapter is; the caller holds it exclusively.

    Raises:
        CannotRunError: the backend cannot be driven in bulk.
    """
    if isinstance(backend, TorchBackend):
        seats = _stacked_seats(backend.model, backend.sites)
        return ViewwiseSource(backend) if seats is None else StackedSource(backend, seats)
    if isinstance(backend, StackedLogitBackend):
        return StackedArraySource(backend)
    if isinstance(backend, LogitBackend):
        return ArraySource(backend)
    if isinstance(backend, ScalarBackend):
        return ScalarSource(backend)
    raise CannotRunError(f"{type(backend).__name__} gives no logits", remedy="use a backend of kind hf")


def _stacked_seats(model: Any, sites: Sites) -> Seats | None:
    """Return where the tensors trained whole sit if all views can be one pass, or None."""
    seats = find_seats(model, sites) if supported(sites) else None
    if seats is None or not keeps_rows(model, sites, seats):
        return None
    # Low-rank terms alone need no trial: PEFT puts their layer where the module was.
    return seats if not seats.seats or agrees(model, sites, seats) else None
