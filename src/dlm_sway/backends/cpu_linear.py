"""fp32 GEMMs on AMD CPUs through oneDNN.

PyTorch sends fp32 products to MKL, which takes its AVX2 kernels on processors that are not Intel's. On an AVX-512 EPYC
that is 170-190 GFLOP/s where oneDNN, also part of PyTorch, reaches 390-400, in the same fp32 arithmetic (measured by
benchmarks/speed as `onednn_vs_mkl`). The choice depends on the processor and never on a timing, so that two runs on
one machine give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

_SMALLEST = 64  # below this a product is not worth the call


@cache
def onednn_pays() -> bool:
    """Return whether this is a processor on which MKL is the slower of the two."""
    info = Path("/proc/cpuinfo")
    return (
        info.is_file()
        and "AuthenticAMD" in info.read_text(encoding="utf-8", errors="replace")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch._C.has_mkl  # noqa: SLF001 (the public function is untyped)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@contextmanager
def fast_linears(model: nn.Module | None) -> Iterator[None]:
    """Let plain fp32 Linear modules on such a CPU use oneDNN inside the block; elsewhere change nothing."""
    with ExitStack() as stack:
        if model is not None and onednn_pays():
            for module in model.modules():
                if isinstance(module, nn.Linear) and _eligible(module):
                    stack.enter_context(_replaced(module, partial(_linear, module)))
        yield


def _eligible(module: nn.Linear) -> bool:
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and min(module.weight.shape) >= _SMALLEST
        and "forward" not in vars(module)
    )


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    # The weight is read at each call, since a view may have put another in its place.
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, module.weight, module.bias, "none", [], "")  # noqa: SLF001 (no public name)
    return y


@contextmanager
def _replaced(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module.forward = forward  # an instance attribute shadows the class's method
    try:
        yield
    finally:
        del module.forward
