"""The revision of a base that an adapter records: it was trained on that one, and not on what is newest."""

from __future__ import annotations

from dlm_sway.adapters.config import load_config
from dlm_sway.core.errors import AdapterError
from dlm_sway.core.model import ModelSpec


def at_recorded_revision(spec: ModelSpec) -> ModelSpec:
    """Return the spec with the revision that its adapter records, where it names none and that adapter's base.

    What reads other adapters than PEFT's has no such record, and says itself what is wrong with a folder.
    """
    if spec.adapter is None or spec.revision is not None:
        return spec
    try:
        revision = load_config(spec.adapter).base_revision(spec.base)
    except AdapterError:
        return spec
    return spec if revision is None else spec.model_copy(update={"revision": revision})
