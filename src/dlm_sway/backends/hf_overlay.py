"""Puts a view's tensors in place of the adapter's, and the adapter's back, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import Tensor

from dlm_sway.backends.hf_sites import LowRankSite, Pairs, Sites
from dlm_sway.core.views import View

Draw: TypeAlias = Callable[[LowRankSite, View], tuple[Tensor, Tensor]]
"""A null's A and B for a site; one that remembers may stand in for `LowRankSite.draw`."""


@contextmanager
def shown(model: Any, sites: Sites, view: View, *, draw: Draw = LowRankSite.draw) -> Iterator[None]:
    """Let the PEFT model compute `view` inside the block; the adapter is back on any exit.

    Tensors are exchanged by reference and never computed back, so what returns is what was there.

    Raises:
        NullRuleError: a null was asked for and a trained tensor has no rule.
        CannotRunError: a scale or a cut was asked for and a trained tensor has none.
    """
    with ExitStack() as stack:
        if view.lam == 0.0:
            stack.enter_context(_disabled(model))
            stack.enter_context(swapped([pair for s in sites.dense if not s.toggled for pair in s.tensors(view)]))
        else:
            if view.kind == "top_rank":
                sites.require_cut()
            elif view.kind != "adapter":
                sites.require_rules()
            if view.lam != 1.0:
                sites.require_scale()
            stack.enter_context(swapped(_tensors(sites, view, draw)))
            stack.enter_context(_scaled(sites, view.lam))
        yield


def _tensors(sites: Sites, view: View, draw: Draw) -> Pairs:
    pairs: Pairs = []
    for site in sites.low_rank:
        if view.kind != "adapter":
            pairs += zip((site.a, site.b), draw(site, view), strict=True)
        if site.magnitude is not None and (view.kind != "adapter" or view.lam != 1.0):
            pairs.append((site.magnitude.trained, site.magnitude.at(view, site.name)))
    return pairs + [pair for site in sites.dense for pair in site.tensors(view)]


@contextmanager
def _disabled(model: Any) -> Iterator[None]:
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # PEFT leaves trained biases in place and says so; they are dense sites, which bring the base's back.
            warnings.filterwarnings("ignore", message="Careful, disabling adapter layers", category=UserWarning)
            stack.enter_context(model.disable_adapter())
        yield


@contextmanager
def swapped(pairs: Pairs) -> Iterator[None]:
    """Let parameters hold other tensors inside the block; theirs are back on any exit, by reference."""
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
    kept = [(layer.scaling, layer.scaling[sites.adapter]) for layer in sites.layers]
    try:
        for table, scaling in kept:
            table[sites.adapter] = scaling * lam
        yield
    finally:
        for table, scaling in kept:
            table[sites.adapter] = scaling
