"""Results of older versions brought up to this one, and those of newer versions refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.extras import UPDATE

# From each older version, what makes a document of the next; a version that is not here needs no change.
_STEPS: Final[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}


def upgraded(document: dict[str, Any], *, newest: int, where: str | Path, remedy: str) -> dict[str, Any]:
    """Return a result's document as the newest version writes it.

    Args:
        document: as it was read.
        newest: the version that this sway writes of its kind.
        where: what errors call it.
        remedy: what to do about one that no sway wrote.

    Raises:
        BadInputError: it has no version, or was written by a newer sway.
    """
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BadInputError("has no usable schema_version", where=where, remedy=remedy)
    if version > newest:
        what = f"has schema_version {version}, and this sway reads up to {newest}"
        raise BadInputError(what, where=where, remedy=UPDATE)
    for step in range(version, newest):
        document = _STEPS[step](document) if step in _STEPS else document
    return {**document, "schema_version": newest}
