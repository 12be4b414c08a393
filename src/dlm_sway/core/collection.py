"""Python's garbage collector, kept from work that finds nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SELDOM: Final = 20_000


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the collection of cycles, where it was on.

    For loading: importing a model library makes a million objects and hardly any garbage, and the collector reads all
    of them again and again (about 1 s of the 4 s that torch, transformers and peft take).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def collect_seldom() -> None:
    """Collect after 20,000 new objects and not 700: for a process that does one thing and ends.

    What a check makes is freed by reference counts; the collector looked 270 times and found next to nothing (0.5 s).
    """
    gc.set_threshold(_SELDOM, *gc.get_threshold()[1:])


def spare_the_end() -> None:
    """Take what is alive out of collection for good, so that a process ends at once.

    Only right before the end: the interpreter would read a million objects of the model library once more before it
    gives all memory back anyway (1.3 s measured). What is to happen at exit still does.
    """
    gc.freeze()
