"""Which backends there are, and opening the one that a spec names. Built-ins register like anybody's plugin."""

from __future__ import annotations

from typing import Any, Final, Protocol, runtime_checkable

from dlm_sway.backends.base import BulkBackend
from dlm_sway.core.collection import no_collection
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.extras import needs_extra
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.registry import Registry
from dlm_sway.core.scoring import DifferentialBackend

GROUP: Final = "dlm_sway.backends"
CUSTOM: Final = "custom"


@runtime_checkable
class Backend(DifferentialBackend, BulkBackend, Protocol):
    """An opened backend as the runner uses it.

    Attributes:
        device: where it computes; its text goes into reports.
        dtype: of its weights; likewise.
    """

    device: Any
    dtype: Any

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> Backend:
        """Load what `spec` names.

        Raises:
            BadInputError: the spec names something that cannot be read, or lacks what this kind needs.
        """
        ...

    def close(self) -> None:
        """Release what the backend holds; calling it twice is harmless."""
        ...


_REGISTRY: Final[Registry[type[Backend]]] = Registry(GROUP, noun="backend")

register: Final = _REGISTRY.register
"""Return a class decorator that makes a backend known as a kind; see `Registry.register`."""


def backend_kinds() -> tuple[str, ...]:
    """Return every kind there is, sorted; imports none of them."""
    return _REGISTRY.kinds()


def backend_class(kind: str) -> type[Backend]:
    """Return the class registered as `kind`, importing it.

    Raises:
        BadInputError: the kind is unknown; the nearest name is offered.
        MissingExtraError: a package that this kind needs is not installed.
    """
    with needs_extra(f"a backend of kind {kind!r}"):
        return _REGISTRY.get(kind)


def open_backend(spec: ModelSpec, *, allow_custom: bool = False) -> Backend:
    """Return the backend that `spec` names, opened; the caller closes it.

    Args:
        spec: what to open.
        allow_custom: whether a spec may name code to import; only a user's own word may set it.

    Raises:
        BadInputError: the kind is unknown (the nearest name is offered), the backend cannot use the spec, or the spec
            names code and that was not allowed.
        MissingExtraError: a package that this kind needs is not installed.
    """
    if spec.kind == CUSTOM and not allow_custom:
        raise BadInputError(
            f"a backend of kind {CUSTOM!r} runs code that this spec names",
            where=str(spec.options.get("entry_point", spec.base)),
            remedy="if you trust it, give --allow-custom (from Python: allow_custom=True)",
        )
    with needs_extra(f"a backend of kind {spec.kind!r}"), no_collection():
        return backend_class(spec.kind).from_spec(spec)
