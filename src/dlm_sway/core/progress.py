"""How long work reports where it stands, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a long piece of work; called from one thread only."""

    def phase(self, label: str) -> None:
        """Say what is being done now, such as `loading the base` (no estimate is known yet)."""
        ...

    def work(self, done: int, total: int) -> None:
        """Say how many view-tokens of those planned so far have been scored; `total` may grow between calls."""
        ...


class Silent:
    """Listens to nothing."""

    def phase(self, label: str) -> None:
        """Ignore it."""

    def work(self, done: int, total: int) -> None:
        """Ignore it."""
