"""Whether a model is fit to be loaded at all, found from the adapter's files alone."""

from __future__ import annotations

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.core.errors import AdapterError
from dlm_sway.core.model import ModelSpec
from dlm_sway.suite.questions import is_blocked, sound

_HF = "hf"


def require_fit(model: ModelSpec) -> None:
    """Return unless the adapter is so unsound that every number of the model would mean nothing.

    Raises:
        AdapterError: it is; the message names the faults.
    """
    if model.kind != _HF or model.adapter is None:
        return
    inspection = inspect_adapter(model.adapter, model.base, revision=model.revision)
    if is_blocked(inspection):
        raise AdapterError(sound(inspection).message, where=model.adapter, remedy="sway inspect lists every fault")
