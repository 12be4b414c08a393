"""`null_adapter`: what adapters of other rank that learned nothing do to the statistics of the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from dlm_sway.core.result import Category, ProbeResult, Verdict
from dlm_sway.core.views import View, rotations
from dlm_sway.data.prompts import SHORT_PROMPTS
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes import delta_kl, target_gain
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register


def _with_nulls(kind: str) -> str:
    if kind not in _KINDS:
        known = ", ".join(f"'{name}'" for name in _KINDS)
        # `expected` is what a suite's loader takes the nearest word from.
        raise PydanticCustomError("no_null", "has no null ({expected} have)", {"expected": known})
    return kind


class NullAdapterSpec(ProbeSpec):
    """Spec of `null_adapter`.

    Attributes:
        runs: number of null draws a multiplier.
        rank_multipliers: ranks of the nulls over the adapter's rank.
        calibrate_kinds: kinds to calibrate; empty: the kinds later in the suite.
        cache: kept for suites written for it; per-position results are always kept for the run and never reused
            across adapters.
    """

    kind: Literal["null_adapter"] = "null_adapter"
    runs: int = Field(default=39, ge=2)
    rank_multipliers: tuple[float, ...] = (1.0,)
    calibrate_kinds: tuple[Annotated[str, AfterValidator(_with_nulls)], ...] = ()
    cache: bool = True

    @field_validator("rank_multipliers")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(m <= 0 for m in value):
            raise ValueError("rank multipliers must be positive and finite")
        if len({_key(m) for m in value}) < len(value):
            raise ValueError("rank multipliers must differ in their first two decimals, which name them")
        return value


@register("null_adapter")
class NullAdapter(Probe[NullAdapterSpec]):
    """What do adapters that learned nothing do to the statistics of this suite?

    Asks: can the suite be calibrated, and how do its statistics behave under nulls of half, equal and double rank?
    Null: rotation (N1), for multipliers other than 1 with resampled singular values; never the base's own noise.
    Statistic: mean, standard deviation (ddof 1) and number of the null values at scale 1, by kind and multiplier.
    Passes when: every kind asked for was calibrated. Skips with the reason when the adapter has no null.
    Costs: runs x multipliers views of the kinds' inputs (six short prompts for a kind without a spec), in one pass.
    """

    category: ClassVar[Category] = "baseline"
    spec_type: ClassVar[type[ProbeSpec]] = NullAdapterSpec
    needs_model: ClassVar[bool | None] = True

    def plan(self, spec: NullAdapterSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: every kind's inputs under all nulls of all multipliers."""
        if seen or env.null_refusal:
            return ()
        views = _views(spec, env)
        return tuple(_KINDS[kind].ask(source, env, views) for kind, source in _calibrated(spec, env).items())

    def measure(self, spec: NullAdapterSpec, env: Env, seen: Seen) -> Found:
        """Null values by kind, one row a multiplier."""
        shape = (len(spec.rank_multipliers), spec.runs)
        calibrated = _calibrated(spec, env) if seen else {}
        values = {
            kind: _KINDS[kind].statistic(source, scores).reshape(shape)
            for (kind, source), scores in zip(calibrated.items(), seen[0] if seen else (), strict=True)
        }
        return Found(data={"values": values})

    def judge(self, spec: NullAdapterSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """PASS when calibrated, SKIP with the reason when not."""
        del p  # a baseline makes no claim of its own
        values: dict[str, Any] = found.data["values"]
        by_rank = {
            _key(m): {kind: _stats(grid[i]) for kind, grid in values.items()}
            for i, m in enumerate(spec.rank_multipliers)
        }
        missing = [kind for kind in _sources(spec, env) if kind not in values]
        evidence = {
            "null": "rotation (N1)",
            "null_stats_by_rank": by_rank,
            "null_stats": by_rank.get(_key(1.0), {}),
            "uncalibrated": missing,
        }
        verdict, message = Verdict.PASS, f"calibrated {', '.join(values)} with {spec.runs} draws a rank"
        if env.null_refusal:
            verdict, message = Verdict.SKIP, f"no null for this adapter: {env.null_refusal}"
        elif not values:
            verdict, message = Verdict.SKIP, "nothing to calibrate: no later probe has a null; set calibrate_kinds"
        elif missing:
            verdict, message = Verdict.WARN, f"{message}; not calibrated (needs its inputs): {', '.join(missing)}"
        return ProbeResult(name=spec.name, kind=spec.kind, verdict=verdict, message=message, evidence=evidence)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the statistic of one kind of probe is made from nulls: on its own spec and inputs, as the probe makes it."""

    ask: Callable[[Any, Env, tuple[View, ...]], Ask]
    statistic: Callable[[Any, Scores], npt.NDArray[np.float64]]
    default: ProbeSpec | None = None


_KINDS: dict[str, _Kind] = {
    "delta_kl": _Kind(
        delta_kl.null_ask,
        lambda spec, scores: delta_kl.statistic(scores, spec.divergence),
        delta_kl.DeltaKLSpec(name="delta_kl", prompts=SHORT_PROMPTS),
    ),
    "target_gain": _Kind(target_gain.null_ask, lambda _, scores: scores.per_token("gain")),
}


def calibrates(kind: str) -> bool:
    """Return whether probes of this kind have a statistic that nulls are drawn for here."""
    return kind in _KINDS


def _sources(spec: NullAdapterSpec, env: Env) -> dict[str, ProbeSpec | None]:
    """Return the spec that each kind to calibrate takes its inputs from; None when it has none."""
    later = {s.kind: s for _, s in reversed(env.later) if s.kind in _KINDS}  # the first of a kind stands for it
    wanted = spec.calibrate_kinds or sorted(later)
    return {kind: later.get(kind, _KINDS[kind].default) for kind in wanted}


def _calibrated(spec: NullAdapterSpec, env: Env) -> dict[str, ProbeSpec]:
    return {kind: source for kind, source in _sources(spec, env).items() if source is not None}


def _views(spec: NullAdapterSpec, env: Env) -> tuple[View, ...]:
    return tuple(v for m in spec.rank_multipliers for v in rotations(seed=env.seed, n_draws=spec.runs, rank_scale=m))


def _key(multiplier: float) -> str:
    return f"rank_{multiplier:.2f}"


def _stats(values: Any) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)),
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "n": float(values.size),
    }
