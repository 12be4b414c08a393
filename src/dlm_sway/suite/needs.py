"""Which probes need a model at all: one that reads files only runs also where no model can be loaded."""

from __future__ import annotations

from typing import Any

from dlm_sway.core.errors import SwayError
from dlm_sway.probes.base import Env, Probe, ProbeSpec


def needs_model(probe: Probe[Any], spec: ProbeSpec) -> bool:
    """Return whether the model is needed for this probe, as its class says, else as its first plan asks."""
    if probe.needs_model is not None:
        return probe.needs_model
    try:
        return bool(probe.plan(spec, Env(chat=True), ()))  # a probe of conversations asks nothing where there are none
    except SwayError:
        return True  # what is wrong is said where the probe runs
