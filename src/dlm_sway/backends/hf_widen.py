"""Lets a model that was loaded in 16 bits compute in fp32 for a moment, without a second copy of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NARROW = (torch.bfloat16, torch.float16)


def is_narrow(dtype: Any) -> bool:
    """Return whether `dtype` is a floating one of 16 bits."""
    return dtype in _NARROW


@contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """Let each module see its own weights in fp32 while it runs; they are as they were after the block.

    Every 16-bit number is an fp32 number, so the weights are the same and only the arithmetic is finer. One module's
    weights are wide at a time. What was computed from wide weights is wide, so all activations are.
    """
    kept: list[tuple[nn.Parameter, Tensor]] = []
    with ExitStack() as stack:
        for module in model.modules():
            own = [(p, p.data) for p in module.parameters(recurse=False) if is_narrow(p.dtype)]
            if own:
                kept += own
                stack.enter_context(_wide_while_it_runs(module, own))
        try:
            yield
        finally:
            _put_back(kept)


@contextmanager
def _wide_while_it_runs(module: nn.Module, own: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    def before(*_: Any) -> None:
        for p, data in own:
            p.data = data.float()

    def after(*_: Any) -> None:
        _put_back(own)

    handles = (module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _put_back(own: list[tuple[nn.Parameter, Tensor]]) -> None:
    for p, data in own:
        p.data = data
