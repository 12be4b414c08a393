"""Reads the `options` of a spec by the model that a kind of backend has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dlm_sway.core.errors import BadInputError

Model = TypeVar("Model", bound=BaseModel)
_SHOWN: Final = 5


class NoOptions(BaseModel):
    """The `options` of a spec of a kind that has none: what it can be told, the spec itself says."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_options(model: type[Model], options: Mapping[str, Any], *, where: str, remedy: str | None = None) -> Model:
    """Return the options as their model.

    Args:
        model: of the options.
        options: as the spec has them.
        where: what they are options of, for the error.
        remedy: what to do about an option that is missing or wrong.

    Raises:
        BadInputError: an option is unknown, missing or wrong; the first five are named.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as e:
        faults = "; ".join(map(_said, e.errors(include_url=False)[:_SHOWN]))
    # Outside the except block: no traceback of what was given, a key perhaps, hangs on it.
    raise BadInputError(faults, where=where, remedy=remedy)


def _said(fault: ErrorDetails) -> str:
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"unknown option {name}"
    return f"{name} is missing" if fault["type"] == "missing" else f"{name}: {fault['msg']}"
