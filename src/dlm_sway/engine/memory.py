"""Recognises that a pass did not fit into memory, on any device, and gives back what a pass has freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch

# PyTorch has a class for CUDA alone; elsewhere it raises a RuntimeError with one of these texts.
_TEXTS: Final = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def fits(work: Callable[[], None]) -> bool:
    """Do `work` and return True, or False when memory ran out on the way; any other error passes.

    Returns only after the error with its traceback is gone, so that the tensors of the failed pass are free.
    """
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    else:
        return True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def give_back() -> None:
    """Return freed memory to the system where the C library keeps it: glibc, so Linux.

    Passes differ in shape, and blocks freed by one do not fit the next: over a check of SmolLM2 the process grew to
    1,574 MB, and with this to 1,329 MB, in the same time within what it varies.
    """
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Any:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # absent in musl
