"""How long work reports where it stands, without knowing who listens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class Progress(Protocol):
    """Receives the state of a long piece of work; called from one thread only."""

    def phase(self, label: str) -> None:
        """Say what is being done now, such as `loading the base` (no estimate is known yet)."""
        ...

    def work(self, done: int, total: int) -> None:
        """Say how many view-tokens of those planned so far have been scored; `total` may grow between calls."""
        ...


@runtime_checkable
class NamesWhatAsks(Progress, Protocol):
    """A listener that also hears for whom the work of this moment is done."""

    def asking(self, names: Sequence[str]) -> None:
        """Say which probes the work is for; called often, with the same names again and again."""
        ...


class Silent:
    """Listens to nothing."""

    def phase(self, label: str) -> None:
        """Ignore it."""

    def work(self, done: int, total: int) -> None:
        """Ignore it."""
