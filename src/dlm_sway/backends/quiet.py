"""Library warnings that say nothing to a user of sway, silenced where they arise and nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence what PEFT says while it builds or loads an adapter.

    Its remarks on missing and unexpected keys are found, named and judged by `sway inspect`. And it asks transformers
    by a name that version 5 gave up: the answer is the same, and no user's affair.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\..*")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
