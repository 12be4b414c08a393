"""How much of what a suite file may hold one takes, so that none is written that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dlm_sway.core.suite_limits import MAX_BYTES, MAX_NODES
from dlm_sway.data.feed import FEWEST, SIZES
from dlm_sway.data.planner import Plan
from dlm_sway.data.suite_text import SHARED

LEAST_SCALE: Final = FEWEST / max(SIZES.values())
"""The scale from which on no list gets shorter."""
LIMITS: Final = f"{MAX_BYTES // 2**20} MiB and {MAX_NODES:,} values"
_FRAME: Final = 50  # values around the probes: the version, the models, the defaults
# Texts differ in length, so that half as many need not be half as long; and some lists keep their length.
_MARGIN: Final = 0.9
_STEP: Final = 0.75


def fullness(text: str, plan: Plan) -> float:
    """Return the larger share of the two limits that a suite takes; over 1 it cannot be read."""
    return max(len(text.encode(errors="replace")) / MAX_BYTES, n_values(plan) / MAX_NODES)


def n_values(plan: Plan) -> int:
    """Return how many values a suite holds: rather a few too many, since not every list that may be shared is."""
    specs = [{"name": p.kind, "kind": p.kind, **p.spec} for p in plan.probes]
    return _FRAME + _count(specs) + _count([plan.feed.values(role) for role in SHARED])


def smaller(scale: float, full: float) -> float:
    """Return the scale to try next where a suite of `scale` is too full."""
    return max(LEAST_SCALE, scale * min(_STEP, _MARGIN / full))


def _count(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(_count(v) for v in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return 1 + sum(_count(v) for v in value)
    return 1
