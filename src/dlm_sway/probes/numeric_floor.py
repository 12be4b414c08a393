"""`numeric_floor`: how far the base is from itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from dlm_sway.core.result import Category, ProbeResult, Verdict
from dlm_sway.engine.ask import Ask
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register
from dlm_sway.probes.units import PER_BYTE


class NumericFloorSpec(ProbeSpec):
    """Spec of `numeric_floor`; it has no options."""

    kind: Literal["numeric_floor"] = "numeric_floor"


@register("numeric_floor")
class NumericFloor(Probe[NumericFloorSpec]):
    """How far is the base from itself when only the shape of the batch changes?

    Asks: what size of effect is rounding on this machine?
    Null: none; this is N0, the floor that other effects are compared with.
    Statistic: the largest KL over positions between eight prompts in one padded batch and one by one, nat.
    Passes when: never a verdict; every effect is printed with its multiple of N0.
    Costs: sixteen short forwards of the base, made once a run.
    """

    category: ClassVar[Category] = "baseline"
    spec_type: ClassVar[type[ProbeSpec]] = NumericFloorSpec
    needs_model: ClassVar[bool | None] = True  # its plan asks nothing, since the run measures the floor anyhow

    def plan(self, spec: NumericFloorSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Ask nothing: the run measures the floor at its start."""
        del spec, env, seen
        return ()

    def measure(self, spec: NumericFloorSpec, env: Env, seen: Seen) -> Found:
        """Return nothing beyond what the run knows."""
        del spec, seen
        return Found(data={"floor": env.floor})

    def judge(self, spec: NumericFloorSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Report the floor; SKIP, since it claims nothing."""
        del p, found
        refusal = env.scores_refusal or ("it is a divergence, over one vocabulary" if env.unit is PER_BYTE else None)
        if refusal:
            message = f"no numeric floor: {refusal}"
            return ProbeResult(name=spec.name, kind=spec.kind, verdict=Verdict.SKIP, message=message)
        return ProbeResult(
            name=spec.name,
            kind=spec.kind,
            verdict=Verdict.SKIP,
            raw=env.floor,
            message=f"numeric floor: KL {env.floor:.2e} nat/position; effects count from ten times that",
            evidence={"unit": "nat/position"},
        )
