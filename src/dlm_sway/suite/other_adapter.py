"""The same suite on another adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.suite.spec import Suite


def with_adapter(suite: Suite, adapter: Path) -> Suite:
    """Return the suite with `adapter` in the place of its own.

    Raises:
        BadInputError: there is no such directory.
    """
    folder = adapter.expanduser().absolute()
    if not folder.is_dir():
        raise BadInputError("is no directory", where=adapter, remedy="name an adapter as PEFT saves it")
    model = ModelSpec.model_validate({**suite.model.model_dump(), "adapter": folder})
    return replace(suite, adapter=str(adapter), model=model)
