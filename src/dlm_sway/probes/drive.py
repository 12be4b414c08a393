"""Drives probes in lockstep: rounds of asks answered together, then one family of tests, then verdicts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

from dlm_sway.backends.base import AdapterBackend, ByteScored, ChatCodec, ScoreRefusing
from dlm_sway.core.errors import NotOfferedError, SwayError
from dlm_sway.core.result import ProbeResult
from dlm_sway.core.scoring import ScalableDifferentialBackend
from dlm_sway.engine.ask import Ask, Request
from dlm_sway.engine.disk_store import DiskStore
from dlm_sway.engine.floor import Floor, measure_floor
from dlm_sway.engine.run import Engine
from dlm_sway.engine.trace import TraceWriter
from dlm_sway.engine.write import answer
from dlm_sway.probes.base import Env, Pairs, Probe, RunContext
from dlm_sway.probes.judging import State, family_p, judge, measure
from dlm_sway.probes.settled import settled
from dlm_sway.probes.units import PER_BYTE, PER_TOKEN

_Plan: TypeAlias = tuple[State, tuple[Request, ...]]


@dataclass(frozen=True, slots=True)
class Driven:
    """What a drive gives.

    Attributes:
        results: one a probe, in order.
        floor: the numeric noise floor N0; None where there are no log-probs.
        engine: the engine, with what it did.
        n_draws: number of nulls that the results refer to.
    """

    results: tuple[ProbeResult, ...]
    floor: Floor | None
    engine: Engine
    n_draws: int


def drive(pairs: Pairs, ctx: RunContext) -> Driven:
    """Run probes together.

    All asks of a round ride the same passes, and the draws of the null are shared, so that maxT sees how the tests
    depend on each other. A probe that fails becomes an ERROR result, and the others go on. Ctrl-C passes with a note
    that says what is kept.
    """
    with ExitStack() as stack:
        store = stack.enter_context(DiskStore(ctx.cache)) if ctx.cache else None
        trace = stack.enter_context(TraceWriter(ctx.trace)) if ctx.trace else None
        engine = Engine(
            ctx.backend,
            batch_tokens=ctx.batch_tokens,
            progress=ctx.progress,
            store=store,
            reuse=ctx.reuse,
            trace=trace,
        )
        try:
            return _driven(pairs, ctx, engine)
        except KeyboardInterrupt as stop:
            stop.add_note(engine.kept)
            raise


def _driven(pairs: Pairs, ctx: RunContext, engine: Engine) -> Driven:
    backend, codec = ctx.backend, ctx.backend.codec
    refusal = backend.scores_refusal() if isinstance(backend, ScoreRefusing) else None
    floor = _floor(engine, ctx)
    rounded = engine.rounding_refusal()
    env = Env(
        seed=ctx.seed,
        n_draws=ctx.n_draws,
        alpha=ctx.alpha,
        format=ctx.format,
        null_refusal=backend.null_refusal() or rounded,
        floor=floor.kl if floor else 0.0,
        chat=codec.has_chat_template,
        tools_refusal=codec.tools_refusal()
        if isinstance(codec, ChatCodec)
        else "this backend renders no conversations",
        **_of_adapter(backend, rounded),
        codec=codec,
        scores_refusal=refusal,
        unit=PER_BYTE if isinstance(backend, ByteScored) else PER_TOKEN,
    )
    ctx.progress.phase("scoring")
    states: list[State] = []
    for n_draws in (*(m for m in ctx.rounds if m < ctx.n_draws), ctx.n_draws):
        # Draw j is the same null in every round, so a later round scores only the draws that are new.
        states = _measured(pairs, replace(env, n_draws=n_draws), engine, spent=[s.seconds for s in states])
        if settled([(s.probe, s.spec, s.env, s.found) for s in states], n_draws=ctx.n_draws):
            break
    adjusted = family_p([s.found for s in states if s.found])
    results = tuple(judge(s, adjusted) for s in states)
    return Driven(results, floor, engine, n_draws)


def _floor(engine: Engine, ctx: RunContext) -> Floor | None:
    ctx.progress.phase("measuring the numeric noise floor")
    try:
        return measure_floor(engine)
    except NotOfferedError:
        return None


def _measured(pairs: Pairs, env: Env, engine: Engine, *, spent: Sequence[float]) -> list[State]:
    states = [State(probe, spec, replace(env, later=pairs[i + 1 :])) for i, (probe, spec) in enumerate(pairs)]
    for state, seconds in zip(states, spent, strict=False):
        state.seconds = seconds
    while _round(states, engine):
        pass
    for state in states:
        measure(state)
    return states


def _of_adapter(backend: object, rounded: str | None = None) -> dict[str, Any]:
    """Return what a plan may know of the adapter itself; `rounded` says why the dtype leaves no scales."""
    if isinstance(backend, AdapterBackend):
        cut, scale = backend.cut_refusal(), backend.scale_refusal() or rounded
        return {"cut_refusal": cut, "scale_refusal": scale, "spectra": cache(backend.spectra)}
    scales = isinstance(backend, ScalableDifferentialBackend)
    return {
        "cut_refusal": "this backend knows no factors",
        "scale_refusal": None if scales else "this backend cannot scale an adapter",
    }


def _round(states: Sequence[State], engine: Engine) -> bool:
    """Answer the next asks of every unfinished probe; return whether there were any."""
    plans: list[_Plan] = []
    for state in states:
        if state.done or state.error:
            continue
        try:
            asks = state.probe.plan(state.spec, state.env, state.seen)
            _require_one_vocabulary(state.probe, asks, engine)
        except SwayError as e:
            state.error = e
            continue
        state.done = not asks
        if asks:
            plans.append((state, asks))
    if plans:
        _answer(plans, engine)
    return bool(plans)


def _require_one_vocabulary(probe: Probe[Any], asks: Sequence[Request], engine: Engine) -> None:
    backend = engine.backend
    if isinstance(backend, ByteScored) and not probe.per_byte and any(isinstance(ask, Ask) for ask in asks):
        raise NotOfferedError(
            backend.token_refusal(), remedy="compare models with one tokenizer; target_gain and external_perplexity run"
        )


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
