"""Drives probes in lockstep: rounds of asks answered together, then one family of tests, then verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from dlm_sway.backends.base import ChatCodec
from dlm_sway.core.errors import SwayError
from dlm_sway.core.result import ProbeResult
from dlm_sway.engine.ask import Ask, Write
from dlm_sway.engine.disk_store import DiskStore
from dlm_sway.engine.floor import Floor, measure_floor
from dlm_sway.engine.run import Engine
from dlm_sway.engine.trace import TraceWriter
from dlm_sway.engine.write import answer
from dlm_sway.probes.base import Env, Found, Pairs, Probe, ProbeSpec, RunContext, Seen
from dlm_sway.probes.offline import failed
from dlm_sway.stats.multiplicity import max_t


@dataclass(slots=True)
class _State:
    """One probe on its way."""

    probe: Probe[Any]
    spec: ProbeSpec
    env: Env
    seen: Seen = ()
    done: bool = False
    found: Found | None = None
    error: SwayError | None = None
    seconds: float = 0.0


_Plan: TypeAlias = tuple[_State, tuple[Ask | Write, ...]]


@dataclass(frozen=True, slots=True)
class Driven:
    """What a drive gives.

    Attributes:
        results: one a probe, in order.
        floor: the numeric noise floor N0.
        engine: the engine, with what it did.
    """

    results: tuple[ProbeResult, ...]
    floor: Floor
    engine: Engine


def drive(pairs: Pairs, ctx: RunContext) -> Driven:
    """Run probes together.

    All asks of a round ride the same passes, and the draws of the null are shared, so that maxT sees how the tests
    depend on each other. A probe that fails becomes an ERROR result, and the others go on. Ctrl-C passes with a note
    that says what is kept.
    """
    with ExitStack() as stack:
        store = stack.enter_context(DiskStore(ctx.cache)) if ctx.cache else None
        trace = stack.enter_context(TraceWriter(ctx.trace)) if ctx.trace else None
        engine = Engine(ctx.backend, batch_tokens=ctx.batch_tokens, progress=ctx.progress, store=store, trace=trace)
        try:
            return _driven(pairs, ctx, engine)
        except KeyboardInterrupt as stop:
            stop.add_note(engine.kept)
            raise


def _driven(pairs: Pairs, ctx: RunContext, engine: Engine) -> Driven:
    ctx.progress.phase("measuring the numeric noise floor")
    floor = measure_floor(engine)
    codec = ctx.backend.codec
    env = Env(
        seed=ctx.seed,
        n_draws=ctx.n_draws,
        alpha=ctx.alpha,
        format=ctx.format,
        null_refusal=ctx.backend.null_refusal(),
        floor=floor.kl,
        chat=codec.has_chat_template,
        tools_refusal=codec.tools_refusal()
        if isinstance(codec, ChatCodec)
        else "this backend renders no conversations",
        codec=codec,
    )
    states = [_State(probe, spec, replace(env, later=pairs[i + 1 :])) for i, (probe, spec) in enumerate(pairs)]
    ctx.progress.phase("scoring")
    while _round(states, engine):
        pass
    for state in states:
        _measure(state)
    adjusted = family_p([s.found for s in states if s.found])
    results = tuple(_judge(s, adjusted) for s in states)
    return Driven(results, floor, engine)


def _round(states: Sequence[_State], engine: Engine) -> bool:
    """Answer the next asks of every unfinished probe; return whether there were any."""
    plans: list[_Plan] = []
    for state in states:
        if state.done or state.error:
            continue
        try:
            asks = state.probe.plan(state.spec, state.env, state.seen)
        except SwayError as e:
            state.error = e
            continue
        state.done = not asks
        if asks:
            plans.append((state, asks))
    if plans:
        _answer(plans, engine)
    return bool(plans)


def _answer(plans: list[_Plan], engine: Engine) -> None:
    began = time.perf_counter()
    try:
        scores = iter(answer(engine, [ask for _, asks in plans for ask in asks], askers=_askers(plans)))
        for state, asks in plans:
            state.seen = (*state.seen, tuple(next(scores) for _ in asks))
    except SwayError as e:
        if len(plans) == 1:
            plans[0][0].error = e
            return
        # One probe's input spoils the round: answer one by one, so that only that probe fails.
        for plan in plans:
            _answer([plan], engine)
        return
    for state, _ in plans:
        state.seconds += (time.perf_counter() - began) / len(plans)


def _askers(plans: list[_Plan]) -> list[str]:
    return [state.spec.name for state, asks in plans for _ in asks]


def _measure(state: _State) -> None:
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


def _judge(state: _State, adjusted: Mapping[int, Mapping[str, float]]) -> ProbeResult:
    if state.error is None and state.found is not None:
        try:
            result = state.probe.judge(state.spec, state.env, state.found, adjusted[id(state.found)])
            return result.model_copy(update={"duration_s": state.seconds})
        except SwayError as e:
            state.error = e
    return failed(state.spec, state.error, seconds=state.seconds)
