"""From what probes measured to what they say: one family of tests, then verdicts. Needs no model and no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlm_sway.core.errors import SwayError
from dlm_sway.core.result import ProbeResult
from dlm_sway.probes.base import Env, Found, Pairs, Probe, ProbeSpec, Seen
from dlm_sway.probes.offline import failed
from dlm_sway.stats.multiplicity import max_t


@dataclass(slots=True)
class State:
    """One probe on its way."""

    probe: Probe[Any]
    spec: ProbeSpec
    env: Env
    seen: Seen = ()
    done: bool = False
    found: Found | None = None
    error: SwayError | None = None
    seconds: float = 0.0


def without_model(pairs: Pairs, env: Env) -> tuple[ProbeResult, ...]:
    """Return the results of probes that ask nothing of a model: they read files."""
    states = [State(probe, spec, env) for probe, spec in pairs]
    for state in states:
        began = time.perf_counter()
        measure(state)
        state.seconds = time.perf_counter() - began
    adjusted = family_p([s.found for s in states if s.found])
    return tuple(judge(s, adjusted) for s in states)


def measure(state: State) -> None:
    """Let a probe that has all its answers measure; what goes wrong is kept with it."""
    if state.error is None:
        try:
            state.found = state.probe.measure(state.spec, state.env, state.seen)
        except SwayError as e:
            state.error = e


def family_p(found: Sequence[Found]) -> Mapping[int, Mapping[str, float]]:
    """Return maxT-adjusted p-values of every test, by identity of its `Found` and by name.

    Tests with equally many draws share their draw indices and form one family. Magnitudes enter as logarithms, so
    that one heavy tail does not swallow the others.
    """
    out: dict[int, dict[str, float]] = {id(f): {} for f in found}
    groups: dict[int, list[tuple[int, str, np.ndarray[Any, np.dtype[np.float64]]]]] = {}
    for f in found:
        for t in f.tests:
            row = np.concatenate([[t.real], t.draws])
            row = np.log(np.maximum(row, np.finfo(np.float64).tiny)) if t.scale == "log" else row
            groups.setdefault(t.draws.size, []).append((id(f), t.name, row))
    for rows in groups.values():
        adjusted = max_t(np.stack([row for *_, row in rows])).p_adjusted
        for (owner, name, _), p in zip(rows, adjusted, strict=True):
            out[owner][name] = float(p)
    return out


def judge(state: State, adjusted: Mapping[int, Mapping[str, float]]) -> ProbeResult:
    """Return a probe's result; one that failed becomes an ERROR, or a SKIP where something it needs is not there."""
    if state.error is None and state.found is not None:
        try:
            result = state.probe.judge(state.spec, state.env, state.found, adjusted[id(state.found)])
            return result.model_copy(update={"duration_s": state.seconds})
        except SwayError as e:
            state.error = e
    return failed(state.spec, state.error, seconds=state.seconds)
