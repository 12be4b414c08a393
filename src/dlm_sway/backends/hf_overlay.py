"""Puts a view's tensors in place of the adapter's, and the adapter's back, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from dlm_sway.backends.hf_sites import Sites
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.views import View


@contextmanager
def shown(model: Any, sites: Sites, view: View) -> Iterator[None]:
    """Let the PEFT model compute `view` inside the block; the adapter is back on any exit.

    Tensors are exchanged by reference and never computed back, so what returns is what was there.
    """
    with ExitStack() as stack:
        if view.lam == 0.0:
            stack.enter_context(model.disable_adapter())
            untoggled = [pair for site in sites.dense if not site.toggled for pair in site.tensors(view)]
            stack.enter_context(_swapped(untoggled))
        else:
            if view.kind != "adapter":
                sites.require_rules()
            elif view.lam != 1.0 and sites.unruled:
                raise CannotRunError(f"the adapter cannot be scaled: {sites.refusal()}")
            pairs = [pair for site in sites.low_rank for pair in site.tensors(view)]
            pairs += [pair for site in sites.dense for pair in site.tensors(view)]
            stack.enter_context(_swapped(pairs))
            stack.enter_context(_scaled(sites, view.lam))
        yield


@contextmanager
def _swapped(pairs: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    kept = [(p, p.data) for p, _ in pairs]
    try:
        for p, new in pairs:
            p.data = new
        yield
    finally:
        for p, old in kept:
            p.data = old


@contextmanager
def _scaled(sites: Sites, lam: float) -> Iterator[None]:
    kept = [(site.layer.scaling, site.adapter, site.layer.scaling[site.adapter]) for site in sites.low_rank]
    try:
        for table, adapter, scaling in kept:
            table[adapter] = scaling * lam
        yield
    finally:
        for table, adapter, scaling in kept:
            table[adapter] = scaling
