"""Which probes there are. Built-ins register through the same entry-point group as anybody's plugin."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from dlm_sway.probes.base import Probe

GROUP: Final = "dlm_sway.probes"
_kinds: dict[str, type[Probe[Any]]] = {}
P = TypeVar("P", bound="type[Probe[Any]]")


def register(kind: str) -> Callable[[P], P]:
    """Return a class decorator that makes a probe known as `kind`.

    Raises:
        ValueError: another class already has that kind.
    """

    def add(cls: P) -> P:
        if _kinds.setdefault(kind, cls) is not cls:
            raise ValueError(f"probe kind {kind!r} is registered twice")
        cls.kind = kind
        return cls

    return add


@cache
def _load() -> None:
    for entry in entry_points(group=GROUP):
        entry.load()


def probes() -> dict[str, type[Probe[Any]]]:
    """Return all registered probe classes by kind, sorted."""
    _load()
    return dict(sorted(_kinds.items()))


def probe_class(kind: str) -> type[Probe[Any]]:
    """Return the class registered as `kind`.

    Raises:
        BadInputError: there is none; the message offers the nearest name.
    """
    known = probes()
    if kind in known:
        return known[kind]
    near = difflib.get_close_matches(kind, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(known)}"
    raise BadInputError(f"unknown probe kind {kind!r}", remedy=hint)
