"""How messages count and list things."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], *, limit: int = 3) -> str:
    """Return the first `limit` names and how many more there are."""
    more = len(names) - limit
    shown = ", ".join(names[:limit])
    return f"{shown} and {more} more" if more > 0 else shown


def counted(n: int, noun: str) -> str:
    """Return `1 tensor`, `3 tensors`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
