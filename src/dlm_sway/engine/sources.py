"""Opens a backend for bulk work and computes, for many views of the same tokens, logits at chosen positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.backends.base import BulkBackend, LogitBackend
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.backends.hf_overlay import shown
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.views import BASE, View
from dlm_sway.engine.head import Head
from dlm_sway.engine.stacked import FactorStore, stacked, supported

FACTOR_BYTES = 192 * 2**20


class Source(Protocol):
    """A model opened for bulk work."""

    name: str
    device: torch.device

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View]) -> Iterator[tuple[slice, Tensor]]:
        """Yield `(block of keep, logits [1 + V, p, K])` of right-padded rows; index 0 is the base.

        Args:
            ids: int64[N, L].
            keep: int64[P, 2], (row, position) of each wanted logit.
            views: the views besides the base.
        """
        ...


class StackedSource:
    """All views of a batch in one pass over the base weights."""

    name = "stacked"

    def __init__(self, backend: HuggingFaceDifferentialBackend) -> None:
        """Use the model that `backend` holds open."""
        self._backend = backend
        self.device = backend.device
        self._head = Head(_causal(backend))
        self._store = FactorStore(max_bytes=FACTOR_BYTES)

    @torch.inference_mode()
    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View]) -> Iterator[tuple[slice, Tensor]]:
        """Yield logits of the base and `views`, block by block."""
        n_views = 1 + len(views)
        with stacked(self._backend.sites, (BASE, *views), self._store):
            hidden = self._head.hidden(ids.repeat(n_views, 1))  # [V * N, L, d]
            hidden = hidden.reshape(n_views, *ids.shape, -1)[:, keep[:, 0], keep[:, 1]]  # [V, P, d]
            yield from self._head.blocks(hidden)


class ViewwiseSource:
    """One pass a view through PEFT, for adapters without a stacked form."""

    name = "view by view"

    def __init__(self, backend: HuggingFaceDifferentialBackend) -> None:
        """Use the model that `backend` holds open."""
        self._backend = backend
        self.device = backend.device
        self._head = Head(_causal(backend))
        trained = {id(p) for s in (*backend.sites.low_rank,) for p in s.layer.parameters()}
        trained |= {id(s.live) for s in backend.sites.dense}
        self._head_is_shared = not any(id(p) in trained for p in self._head.project.parameters())

    @torch.inference_mode()
    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View]) -> Iterator[tuple[slice, Tensor]]:
        """Yield logits of the base and `views`, block by block."""
        every = (BASE, *views)
        hidden = torch.stack([self._hidden(ids, keep, v) for v in every])  # [V, P, d]
        if self._head_is_shared:
            yield from self._head.blocks(hidden)
            return
        step = max(1, 256 // len(every))
        for begin in range(0, hidden.shape[1], step):
            part = [self._logits(h[begin : begin + step], v) for h, v in zip(hidden, every, strict=True)]
            yield slice(begin, begin + step), torch.stack(part)

    def _hidden(self, ids: Tensor, keep: Tensor, view: View) -> Tensor:
        with shown(self._backend.model, self._backend.sites, view):
            return self._head.hidden(ids)[keep[:, 0], keep[:, 1]]

    def _logits(self, hidden: Tensor, view: View) -> Tensor:
        with shown(self._backend.model, self._backend.sites, view):
            return self._head.logits(hidden)


class ArraySource:
    """A backend that computes its logits itself, in numpy."""

    name = "backend"
    device = torch.device("cpu")

    def __init__(self, backend: LogitBackend) -> None:
        """Ask `backend` one view at a time."""
        self._backend = backend

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View]) -> Iterator[tuple[slice, Tensor]]:
        """Yield logits of the base and `views` in one block."""
        rows: npt.NDArray[np.int64] = ids.numpy()
        parts = [self._backend.logits(rows, keep.numpy(), v) for v in (BASE, *views)]
        yield slice(0, len(keep)), torch.from_numpy(np.stack(parts))


def open_source(backend: BulkBackend) -> Source:
    """Return the fastest way to drive a backend, chosen by what its adapter is; the caller holds it exclusively.

    Raises:
        CannotRunError: the backend cannot be driven in bulk.
    """
    if isinstance(backend, HuggingFaceDifferentialBackend):
        return StackedSource(backend) if supported(backend.sites) else ViewwiseSource(backend)
    if isinstance(backend, LogitBackend):
        return ArraySource(backend)
    raise CannotRunError(f"{type(backend).__name__} gives no logits", remedy="use a backend of kind hf")


def _causal(backend: HuggingFaceDifferentialBackend) -> Any:
    """Return the causal LM inside the PEFT wrapper; prompt learning lives in the wrapper, so then keep it."""
    peft = backend.model
    return peft if peft.active_peft_config.is_prompt_learning else peft.get_base_model()
