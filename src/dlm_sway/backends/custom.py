"""A backend that the user wrote: any class, named by its entry point, that keeps the protocols.

    kind: custom
    base: what reports call it
    options:
      entry_point: my_package.my_module:MyBackend

It runs code that a spec names, so `open_backend` refuses the kind unless its caller says `allow_custom`.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, ClassVar, Final

from dlm_sway.backends.base import BulkBackend
from dlm_sway.backends.registry import Backend, register
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.scoring import DifferentialBackend

_ENTRY_POINT: Final = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
_OPTION: Final = "entry_point"
_ANSWERS: Final = ("logits", "scalars")


@register("custom")
class CustomBackend:
    """Opens the class that `options.entry_point` names; it is never an instance itself."""

    kind: ClassVar[str]

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> Backend:
        """Import the class, check what it offers, and open it with the same spec.

        Raises:
            BadInputError: no entry point, or one that cannot be imported, or a class that lacks methods; each is named.
            CannotRunError: what it opens lacks attributes; each is named.
        """
        found = _imported(spec)
        if lacking := missing(found):
            raise BadInputError(
                f"{found.__qualname__} lacks {', '.join(lacking)}", where=spec.options[_OPTION], remedy=_REMEDY
            )
        backend: Backend = found.from_spec(spec)
        if absent := [name for name in ("id", "codec", "device", "dtype") if not hasattr(backend, name)]:
            raise CannotRunError(
                f"what it opened has no {', '.join(absent)}", where=spec.options[_OPTION], remedy=_REMEDY
            )
        return backend


_REMEDY: Final = "see docs/backends.md; dlm_sway.testing.backend_conformance tests a backend"


def missing(cls: type[Any]) -> list[str]:
    """Return each method that a class lacks to be a backend, with its protocol, sorted by protocol."""
    needed = {
        "DifferentialBackend": _methods(DifferentialBackend),
        "BulkBackend": sorted(set(_methods(BulkBackend)) - {"codec"}),  # set when it is opened
        "Backend": ("close", "from_spec"),
    }
    lacking = [f"{name} ({owner})" for owner, names in needed.items() for name in names if not _callable(cls, name)]
    if not any(_callable(cls, name) for name in _ANSWERS):
        lacking.append(f"{_ANSWERS[0]} (LogitBackend) or {_ANSWERS[1]} (ScalarBackend)")
    return lacking


def _methods(protocol: type[Any]) -> list[str]:
    return sorted(n for n, value in vars(protocol).items() if not n.startswith("_") and callable(value)) + sorted(
        n for n, value in vars(protocol).items() if isinstance(value, property)
    )


def _callable(cls: type[Any], name: str) -> bool:
    return callable(getattr(cls, name, None))


def _imported(spec: ModelSpec) -> type[Any]:
    named = spec.options.get(_OPTION)
    if not isinstance(named, str) or not _ENTRY_POINT.match(named):
        what = "no entry point is named" if named is None else f"{named!r} is no entry point"
        raise BadInputError(what, where="options of a custom backend", remedy=f"set {_OPTION} to package.module:Class")
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        where = error.name or module
        raise BadInputError(
            f"{where} cannot be imported: {error}", where=named, remedy="install it, or set PYTHONPATH"
        ) from error
    except Exception as error:  # a user's module may raise what it likes while it is imported
        raise CannotRunError(f"its module failed on import: {type(error).__name__}: {error}", where=named) from error
    if not isinstance(found, type):
        raise BadInputError(f"{module} has no class {name}", where=named, remedy=f"set {_OPTION} to one of its classes")
    return found
