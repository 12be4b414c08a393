"""Which probes there are. Built-ins register through the same entry-point group as anybody's plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dlm_sway.core.registry import Registry

if TYPE_CHECKING:
    from dlm_sway.probes.base import Probe

GROUP: Final = "dlm_sway.probes"
_REGISTRY: Final[Registry[type[Probe[Any]]]] = Registry(GROUP, noun="probe")

register: Final = _REGISTRY.register
"""Return a class decorator that makes a probe known as a kind; see `Registry.register`."""


def probes() -> dict[str, type[Probe[Any]]]:
    """Return all registered probe classes by kind, sorted."""
    return _REGISTRY.all()


def probe_kinds() -> tuple[str, ...]:
    """Return every kind there is, sorted; imports none of them."""
    return _REGISTRY.kinds()


def probe_class(kind: str) -> type[Probe[Any]]:
    """Return the class registered as `kind`.

    Raises:
        BadInputError: there is none; the message offers the nearest name.
    """
    return _REGISTRY.get(kind)
