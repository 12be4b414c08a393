"""Recognises that a pass did not fit into memory, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

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
