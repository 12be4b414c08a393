"""One pass a view through PEFT, for adapters without a stacked form."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dlm_sway.backends.hf_overlay import shown
from dlm_sway.backends.hf_sites import Sites
from dlm_sway.backends.torch_backend import TorchBackend
from dlm_sway.core.views import BASE, View
from dlm_sway.engine.factors import FactorStore
from dlm_sway.engine.head import Head, tall
from dlm_sway.engine.kv_cache import continues
from dlm_sway.engine.shared import Heads, read
from dlm_sway.engine.widths import ROWS

_STORE_BYTES = 192 * 2**20
_BLOCK_ROWS = 256  # rows of logits a block, over all views; their number is bounded, since K is not known before


class ViewwiseSource:
    """One pass a view through PEFT; right for every adapter that PEFT knows."""

    name = "view by view"
    stacks = False

    def __init__(self, backend: TorchBackend) -> None:
        """Use the model that `backend` holds open."""
        self._backend = backend
        self.device = backend.device
        # Prompt learning puts tokens of its own before each row.
        virtual = getattr(backend.model.active_peft_config, "num_virtual_tokens", None) or 0
        self.window = backend.codec.max_length - virtual
        # PEFT's wrapper and not the model inside: prompt learning and some variants of LoRA live in its forward.
        self._head = Head(backend.model)
        self.model: Any = backend.model.get_base_model()
        self._store = FactorStore(max_bytes=_STORE_BYTES)
        self._head_is_trained = self._head.is_separate and self._is_trained(self._head.project)

    def views_per_pass(self, views: Sequence[View]) -> int:
        """Return all of them: one is in place at a time."""
        return max(1, len(views))

    @cached_property
    def continues(self) -> bool:
        """Whether the model inside the wrapper computes the same from a padded cache as the wrapper from whole rows."""
        # An activated LoRA looks for its invocation tokens in what it reads, so it must read whole rows.
        plain = getattr(self._backend.model.active_peft_config, "alora_invocation_tokens", None) is None
        return plain and continues(self.model, whole=self._backend.model)

    @cached_property
    def _inner(self) -> Head:
        return Head(self.model)

    def showing(self, views: Sequence[View]) -> AbstractContextManager[None]:
        """Let the model compute the one view of `views` inside the block."""
        (view,) = views
        return shown(self._backend.model, self._backend.sites, view, draw=self._store.get)

    def blocks(
        self, ids: Tensor, keep: Tensor, views: Sequence[View], heads: Heads | None = None
    ) -> Generator[tuple[slice, Tensor], None, None]:
        """Yield logits of the base and `views`, block by block."""
        every = (BASE, *views)
        hidden = torch.stack([self._hidden(ids, keep, v, heads) for v in every])  # [V, P, d]
        if not self._head_is_trained:
            yield from self._head.blocks(hidden)
            return
        sites = self._backend.sites.within(self._head.project)
        step = max(ROWS, _BLOCK_ROWS // len(every))
        for begin in range(0, hidden.shape[1], step):
            part = hidden[:, begin : begin + step]  # [V, p, d]
            z = [self._logits(h, v, sites) for h, v in zip(tall(part, ROWS), every, strict=True)]
            yield slice(begin, begin + step), torch.stack(z)[:, : part.shape[1]]

    def _hidden(self, ids: Tensor, keep: Tensor, view: View, heads: Heads | None) -> Tensor:
        head = self._head if heads is None else self._inner
        with self.showing((view,)):
            return torch.cat([hidden[0] for _, hidden in read(head, ids, keep, n_views=1, heads=heads)])  # [P, d]

    def _logits(self, hidden: Tensor, view: View, sites: Sites) -> Tensor:
        with shown(self._backend.model, sites, view, draw=self._store.get):
            return self._head.logits(hidden)

    def _is_trained(self, project: torch.nn.Module) -> bool:
        """Whether the projection differs between views, so that it must be applied under each."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        live = {id(site.live) for site in self._backend.sites.dense}
        return any(isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper) for m in project.modules()) or any(
            id(p) in live for p in project.parameters()
        )
