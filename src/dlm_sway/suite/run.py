"""`sway run`: a suite, from its file to its result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from dlm_sway.backends.fingerprint import Fingerprinted
from dlm_sway.backends.one_base import OneBase
from dlm_sway.backends.registry import Backend
from dlm_sway.core.errors import SwayError
from dlm_sway.core.extras import needs_extra
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.core.scoring import PreflightCheckable
from dlm_sway.probes.base import Env, Pairs, RunContext
from dlm_sway.probes.judging import without_model
from dlm_sway.suite.arrange import Arranged, arrange
from dlm_sway.suite.fit import require_fit
from dlm_sway.suite.loader import load_spec
from dlm_sway.suite.score import composite
from dlm_sway.suite.settings import Settings, SettingsWords
from dlm_sway.suite.spec import Suite
from dlm_sway.suite.suite_provenance import suite_provenance
from dlm_sway.suite.whats_next import whats_next

if TYPE_CHECKING:
    from dlm_sway.probes.drive import Driven


@dataclass(slots=True)
class Asked:
    """What the model said.

    Attributes:
        results: of the probes that need it, in the order that they ran in.
        driven: None where the model was not fit to be asked.
        facts: device and dtype, as provenance names them.
        timing: seconds by phase, and the engine's work.
    """

    results: tuple[ProbeResult, ...] = ()
    driven: Driven | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)


def run(
    suite: Suite | Path | str,
    *,
    progress: Progress | None = None,
    bases: OneBase | None = None,
    **settings: Unpack[SettingsWords],
) -> SuiteResult:
    """Return what the probes of a suite found.

    Probes that need no model run first, and also where none can be loaded; then the model is loaded, once, and all
    others share its passes.

    Args:
        suite: a suite, or the path of its file.
        progress: who listens.
        bases: keeps the base for the next run, where only the adapter changes; without it nothing stays open.
        **settings: the fields of `Settings`; what is not given is as the suite says.

    Raises:
        SpecError: the file is wrong; it names every fault.
        BadInputError: a setting cannot be used, or the model cannot be loaded and nothing else was asked.
        MissingExtraError: a package to load the model with is not installed, and nothing else was asked.
        CannotRunError: the model could not do the work.
    """
    began = time.perf_counter()
    suite = suite if isinstance(suite, Suite) else load_spec(suite)
    own, progress = Settings(**settings), progress or Silent()
    arranged = arranged_for(suite, own)
    read = _read(suite, own, arranged)
    asked = Asked()
    if arranged.of_model:
        try:
            with nullcontext(bases) if bases else OneBase() as kept:
                asked = _asked(suite, own, arranged.of_model, progress, kept)
        except SwayError as fault:
            if not read:
                raise
            asked = Asked(_unanswered(arranged.of_model, fault.one_line()))
    asked.timing = {"total_s": round(time.perf_counter() - began, 3), **asked.timing}
    return _assembled(suite, own, arranged, read, asked)


def arranged_for(suite: Suite, own: Settings) -> Arranged:
    """Return which probes run; a calibration that is added has the draws of the first round."""
    n_draws = (*own.rounds(suite), own.draws(suite))[0]
    return arrange(suite.pairs, only=own.only, skip=own.skip, limit=own.limit, n_draws=n_draws)


def _read(suite: Suite, own: Settings, arranged: Arranged) -> tuple[ProbeResult, ...]:
    """Return the results of the probes that read files only."""
    if not arranged.of_files:
        return ()
    return without_model(arranged.of_files, env_of(suite, own))


def env_of(suite: Suite, own: Settings) -> Env:
    """Return what a plan may know before there is a model, which is taken for one that can do everything."""
    seed = suite.defaults.seed if own.seed is None else own.seed
    own_format, alpha = suite.defaults.format, suite.defaults.alpha
    return Env(seed=seed, n_draws=own.draws(suite), alpha=alpha, format=own_format, chat=True)


def _asked(suite: Suite, own: Settings, pairs: Pairs, progress: Progress, bases: OneBase) -> Asked:
    model = own.model(suite)
    progress.phase("loading the base")
    require_fit(model)
    began = time.perf_counter()
    with bases.lent(model, allow_custom=own.allow_custom) as backend:
        loaded = round(time.perf_counter() - began, 3)
        asked = _answered(backend, suite, own, pairs, progress)
    asked.timing = {"load_s": loaded, **asked.timing}
    return asked


def _answered(backend: Backend, suite: Suite, own: Settings, pairs: Pairs, progress: Progress) -> Asked:
    facts = {"device": str(backend.device), "dtype": str(backend.dtype).removeprefix("torch.")}
    if isinstance(backend, PreflightCheckable):
        progress.phase("checking that its numbers are finite")
        ok, reason = backend.preflight_finite_check()
        if not ok:
            return Asked(_unanswered(pairs, f"the model's numbers are not finite: {reason}"), facts=facts)
    with needs_extra("asking a model"):
        from dlm_sway.probes.drive import drive
    driven = drive(pairs, _context(backend, suite, own, progress))
    return Asked(driven.results, driven, facts, driven.engine.work())


def _context(backend: Backend, suite: Suite, own: Settings, progress: Progress) -> RunContext:
    env = env_of(suite, own)
    return RunContext(
        backend=backend,
        seed=env.seed,
        n_draws=env.n_draws,
        alpha=env.alpha,
        format=env.format,
        batch_tokens=own.batch_tokens,
        progress=progress,
        cache=own.cache if isinstance(backend, Fingerprinted) else None,
        trace=own.trace,
        reuse=own.reuse,
        rounds=own.rounds(suite),
    )


def _unanswered(pairs: Pairs, reason: str) -> tuple[ProbeResult, ...]:
    """Return one ERROR, at the first probe that the model was needed for, and a SKIP for every other one."""
    specs = [spec for _, spec in pairs]
    first = next((spec for probe, spec in pairs if probe.category != "baseline"), specs[0])
    why = f"not asked, since {first.name} could not be answered"
    return tuple(
        ProbeResult(name=spec.name, kind=spec.kind, verdict=Verdict.ERROR, score=0.0, message=reason)
        if spec is first
        else ProbeResult(name=spec.name, kind=spec.kind, verdict=Verdict.SKIP, message=why)
        for spec in specs
    )


def _assembled(
    suite: Suite,
    own: Settings,
    arranged: Arranged,
    read: tuple[ProbeResult, ...],
    asked: Asked,
) -> SuiteResult:
    by_name = {result.name: result for result in (*read, *asked.results)}
    if arranged.added:
        added = by_name[arranged.added]
        words = f"added, since the suite names no calibration: {added.message}"
        by_name[arranged.added] = added.model_copy(update={"message": words})
    ordered = tuple(by_name[spec.name] for _, spec in arranged.pairs)
    weights = own.score_weights(suite)
    score = composite(ordered, arranged.categories, weights=weights)
    came_from: dict[str, Any] = suite_provenance(
        suite, own, arranged, driven=asked.driven, facts=asked.facts, env=env_of(suite, own)
    )
    return SuiteResult(
        name=suite.name,
        base=suite.base,
        adapter=suite.adapter,
        score=score.score,
        components=score.components,
        coverage=score.coverage,
        band=score.band,
        next_steps=whats_next(ordered),
        probes=ordered,
        provenance=came_from,
        timing=dict(asked.timing),
    )
