"""Runs a probe that reads files alone: no backend, no engine, and no torch unless the file needs it."""

from __future__ import annotations

import time
from typing import Any

from dlm_sway.core.errors import MissingExtraError, NotOfferedError, SwayError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.probes.base import Env, Probe, ProbeSpec, RunContext


def offline(probe: Probe[Any], spec: ProbeSpec, ctx: RunContext) -> ProbeResult:
    """Return the result of a probe whose `needs_model` is false; one that fails becomes an ERROR result."""
    env = Env(seed=ctx.seed, n_draws=ctx.n_draws, alpha=ctx.alpha, format=ctx.format)
    began = time.perf_counter()
    try:
        result = probe.judge(spec, env, probe.measure(spec, env, ()), {})
    except SwayError as error:
        return failed(spec, error, seconds=time.perf_counter() - began)
    return result.model_copy(update={"duration_s": time.perf_counter() - began})


def failed(spec: ProbeSpec, error: SwayError | None, *, seconds: float) -> ProbeResult:
    """Return the result of a probe that could not be run: ERROR, or SKIP where something it needs is not there."""
    # Nothing was asked of the model, so nothing is wrong with it.
    skipped = isinstance(error, MissingExtraError | NotOfferedError)
    return ProbeResult(
        name=spec.name,
        kind=spec.kind,
        verdict=Verdict.SKIP if skipped else Verdict.ERROR,
        score=None if skipped else 0.0,
        message=error.one_line() if error else "the probe measured nothing",
        duration_s=seconds,
    )
