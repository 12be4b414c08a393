"""What a probe is: plan what to score, measure it, judge it. No probe loops over views, prompts or seeds.

    plan(spec, env, seen)   -> asks of the next round, () when done            pure, no model
    measure(spec, env, seen) -> statistics for the adapter and for each null   pure, numpy
    judge(spec, env, found, p) -> claims with verdicts                         pure

`p` are the p-values after the family of the whole suite is known, which is why judging is a step of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlm_sway.backends.base import Format, RankedModule, TextCodec
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.core.result import Category, ProbeResult, Question, worst
from dlm_sway.core.views import FINETUNED, View, rotations
from dlm_sway.engine.ask import Request
from dlm_sway.probes.registry import probe_class, register
from dlm_sway.probes.units import PER_TOKEN, Unit

__all__ = [
    "Env",
    "Found",
    "NullTest",
    "Probe",
    "ProbeSpec",
    "RunContext",
    "Seen",
    "build_probe",
    "register",
]


class ProbeSpec(BaseModel):
    """What every probe's spec has."""

    # A margin or minimum without end is none: nothing is ever outside of it.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    kind: str


MOST_DRAWS: Final = 1_000_000
"""Nulls of a seed that tests may use; later ones are for choosing a scale before any test."""

SpecT = TypeVar("SpecT", bound=ProbeSpec)
Seen: TypeAlias = "tuple[tuple[Any, ...], ...]"
"""Answers by round, in the order asked for: `Scores` for an `Ask`, `Written` for a `Write`, `Sloped` for `Slopes`."""
Pairs: TypeAlias = "tuple[tuple[Probe[Any], ProbeSpec], ...]"


@dataclass(frozen=True, slots=True)
class Env:
    """What a plan may know of the run.

    Attributes:
        seed: the run's seed.
        n_draws: number of nulls, m.
        alpha: level of tests against nulls, and of bounds on harm.
        format: how prompts are rendered.
        null_refusal: why rotation nulls cannot be drawn, or None.
        floor: N0, the KL in nats per position that numerics alone can make.
        chat: whether conversations can be rendered: the model has a chat template.
        tools_refusal: why tools cannot be shown to the model, or None when they can.
        scale_refusal: why the adapter's effect cannot be scaled, or None when it can.
        cut_refusal: why the adapter cannot be cut to its largest directions, or None when it can.
        spectra: gives the spectrum of delta W by module; None where the backend knows no factors.
        scores_refusal: why there are no log-probs at all, only written text, or None when there are.
        unit: what gains are counted in.
        later: the probes after this one in the suite; only `null_adapter` looks.
        codec: turns text into the model's tokens, for plans that count them exactly; None where no model is loaded.
    """

    seed: int = 0
    n_draws: int = 39
    alpha: float = 0.05
    format: Format = "auto"
    null_refusal: str | None = None
    floor: float = 0.0
    chat: bool = False
    tools_refusal: str | None = None
    scale_refusal: str | None = None
    cut_refusal: str | None = None
    spectra: Callable[[], Mapping[str, RankedModule]] | None = None
    scores_refusal: str | None = None
    unit: Unit = PER_TOKEN
    later: Pairs = ()
    codec: TextCodec | None = None

    def adapter_and_nulls(self, lam: float = 1.0) -> tuple[View, ...]:
        """Return the adapter at `lam` and, where nulls can be drawn, `n_draws` rotations at `lam`."""
        real = FINETUNED if lam == 1.0 else View(lam=lam)
        nulls = () if self.null_refusal else rotations(seed=self.seed, n_draws=self.n_draws, lam=lam)
        return (real, *nulls)

    def pilots(self, n: int, lam: float) -> tuple[View, ...]:
        """Return `n` rotations at `lam` that are no test's nulls: those after all that `n_draws` may ask for."""
        return rotations(seed=self.seed, n_draws=n, lam=lam, first=MOST_DRAWS)

    def rng(self, *words: str) -> np.random.Generator:
        """Return the random stream for resampling under these words."""
        return stream(self.seed, "resample", *words)

    @property
    def null_name(self) -> str:
        """The null as reports name it."""
        return f"rotation (N1), {self.n_draws} draws"


@dataclass(frozen=True, slots=True)
class NullTest:
    """A statistic of the adapter and of each null on the same inputs; one row of the suite's family.

    Attributes:
        name: unique within the probe, such as `learned`.
        real: the adapter's value.
        draws: float64[m], the nulls' values, in the order of their draw index.
        scale: whether values are positive magnitudes (`log`) or signed (`linear`).
    """

    name: str
    real: float
    draws: npt.NDArray[np.float64]
    scale: Literal["log", "linear"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe measured.

    Attributes:
        tests: its rows of the family.
        data: whatever its `judge` needs.
    """

    tests: tuple[NullTest, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


class Probe(ABC, Generic[SpecT]):
    """One claim about a fine-tune. The docstring of each says: Asks, Null, Statistic, Passes when, Costs."""

    kind: ClassVar[str]
    category: ClassVar[Category]
    spec_type: ClassVar[type[ProbeSpec]]
    needs_model: ClassVar[bool | None] = None
    """Whether a model has to be there; None: if the first plan asks for anything."""
    per_byte: ClassVar[bool] = False
    """Whether its question is one of whole strings, so that it can be asked of models with two tokenizers."""

    @abstractmethod
    def plan(self, spec: SpecT, env: Env, seen: Seen) -> tuple[Request, ...]:
        """Return the asks of the next round as a function of the answers so far; empty when nothing is missing."""

    @abstractmethod
    def measure(self, spec: SpecT, env: Env, seen: Seen) -> Found:
        """Return the statistics."""

    @abstractmethod
    def judge(self, spec: SpecT, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Return the result; `p` holds the adjusted p-value of each of `found.tests` by name."""

    def at_end(self, found: Found, *, above: bool) -> Found:
        """Return what is measured, its `tests` with all draws there will be, and all else that draws decide likewise.

        The later draws are made up: all `above` everything before, or all below it (`settled`). A probe whose `judge`
        reads nulls outside `tests` says here what becomes of them.
        """
        del above
        return found

    def run(self, spec: SpecT, ctx: RunContext) -> ProbeResult:
        """Run this probe alone: a suite of one."""
        if self.needs_model is False:
            from dlm_sway.probes.offline import offline

            return offline(self, spec, ctx)
        from dlm_sway.probes.drive import drive

        return drive(((self, spec),), ctx).results[0]


@dataclass(slots=True)
class RunContext:
    """A model to probe and the settings of the run.

    Attributes:
        backend: a differential backend; None for probes that need no model.
        seed: the run's seed.
        n_draws: number of nulls.
        alpha: level of tests against nulls, and of bounds on harm.
        format: how prompts are rendered.
        batch_tokens: view-tokens a chunk, or None for the engine's own.
        progress: who listens.
        cache: folder where results outlive the run, or None.
        trace: file that gets a line a chunk, or None.
        reuse: whether what earlier runs left in `cache` is used; off, it is only kept for later ones.
        rounds: numbers of draws to try before `n_draws`; the first after which no verdict can change is the last.
    """

    backend: Any
    seed: int = 0
    n_draws: int = 39
    alpha: float = 0.05
    format: Format = "auto"
    batch_tokens: int | None = None
    progress: Progress = field(default_factory=Silent)
    cache: Path | None = None
    trace: Path | None = None
    reuse: bool = True
    rounds: tuple[int, ...] = ()


def build_probe(raw: Mapping[str, Any]) -> tuple[Probe[Any], ProbeSpec]:
    """Return the probe and its validated spec from a mapping with `name`, `kind` and the kind's own keys.

    Raises:
        BadInputError: the kind is unknown or the spec is invalid; each fault is named.
    """
    cls = probe_class(str(raw.get("kind", "")))
    try:
        return cls(), cls.spec_type.model_validate(dict(raw))
    except ValidationError as e:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors()[:5])
        raise BadInputError(faults, where=f"probe {raw.get('name')!r}", remedy="run: sway list-probes") from None


def result_of(
    spec: ProbeSpec, claims: Mapping[str, Question], *, headline: str, evidence: Mapping[str, Any], score: float | None
) -> ProbeResult:
    """Return a probe's result from its claims; the worst claim is the verdict, `headline` the effect shown.

    The claims are kept in the evidence, where `sway check` finds the answers to its questions.
    """
    main = claims[headline]
    return ProbeResult(
        name=spec.name,
        kind=spec.kind,
        verdict=worst(c.verdict for c in claims.values()),
        score=score,
        raw=main.effect,
        message=main.message,
        ci_95=main.interval,
        evidence={"claims": {k: c.model_dump(mode="json") for k, c in claims.items()}, "unit": main.unit, **evidence},
    )
