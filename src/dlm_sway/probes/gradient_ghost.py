"""`gradient_ghost`: was every tensor trained, and with finite numbers? From the trainer's state, without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict, worst
from dlm_sway.data.training_log import find_state
from dlm_sway.engine.ask import Ask
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.inputs import shown
from dlm_sway.probes.optimizer_state import NAMES, OptimizerState, TrainedTensor, find_optimizer, read_optimizer

_MOST_ROWS = 200
_MARKS = {Verdict.PASS: 1.0, Verdict.WARN: 0.5, Verdict.FAIL: 0.0}


class GradientGhostSpec(ProbeSpec):
    """Spec of `gradient_ghost`.

    Attributes:
        checkpoint: a trainer's directory or checkpoint, or the file with the optimizer's state.
        min_steps: updates under which a training is called short.
        min_epochs: passes over the data under which a training is called short, where the trainer counts them.
    """

    kind: Literal["gradient_ghost"] = "gradient_ghost"
    checkpoint: Path
    min_steps: int = Field(default=20, ge=0)
    min_epochs: float = Field(default=1.0, ge=0)

    @field_validator("checkpoint")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


@register("gradient_ghost")
class GradientGhost(Probe[GradientGhostSpec]):
    """Was every tensor trained, with finite numbers and for long enough? Read from the trainer's state.

    Asks: did each tensor that the optimizer was given get gradients, are its moments finite, and how many steps were
        done?
    Null: none; the checks are exact. Sizes of moments are never compared: they differ by depth and between A and B.
    Statistic: `finite`: numbers in the moments that are NaN or infinite. `updated`: tensors without a moment, or whose
        squared gradients are all exactly 0. `long_enough`: updates done, and passes over the data.
    Passes when: every moment is finite, every tensor was updated, and there were at least 20 updates and one pass over
        the data. Fails on a number that is not finite and on a tensor never updated after the second step; a training
        that is short is a warning.
    Costs: reading the checkpoint with `weights_only=True`; no model.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = GradientGhostSpec
    needs_model: ClassVar[bool | None] = False

    def plan(self, spec: GradientGhostSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Ask nothing of a model."""
        del spec, env, seen
        return ()

    def measure(self, spec: GradientGhostSpec, env: Env, seen: Seen) -> Found:
        """What the trainer left behind."""
        del env, seen
        home = spec.checkpoint
        if not home.exists():
            raise BadInputError("no such file or directory", where=home, remedy="name a trainer's checkpoint")
        state = find_state(home if home.is_dir() else home.parent)
        # A run's directory keeps its optimizer in the newest checkpoint, where its state is too.
        file = find_optimizer(home) or (find_optimizer(state.parent) if state else None)
        if file is None and state is None:
            what = f"holds neither an optimizer's state ({', '.join(NAMES[:2])}) nor trainer_state.json"
            raise BadInputError(what, where=home, remedy="train with `save_only_model=False`")
        return Found(
            data={
                "optimizer": read_optimizer(file) if file else None,
                "trainer": read_json_object(state) if state else {},
            }
        )

    def judge(self, spec: GradientGhostSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Claims: finite, updated, long_enough."""
        del env, p
        optimizer: OptimizerState | None = found.data["optimizer"]
        trainer: Mapping[str, Any] = found.data["trainer"]
        steps = _steps(optimizer, trainer)
        claims = {
            "finite": _finite(optimizer),
            "updated": _updated(optimizer, steps),
            "long_enough": _long_enough(steps, trainer, spec),
        }
        verdict = worst(c.verdict for c in claims.values())
        headline = next(name for name in ("updated", *claims) if claims[name].verdict is verdict)
        evidence = _evidence(optimizer, trainer, steps)
        return result_of(spec, claims, headline=headline, score=_MARKS.get(verdict), evidence=evidence)


_NO_STATE = "the checkpoint holds no optimizer's state; train with `save_only_model=False`"


def _steps(optimizer: OptimizerState | None, trainer: Mapping[str, Any]) -> int | None:
    counted = [t.steps for t in optimizer.tensors if t.steps is not None] if optimizer else []
    told = trainer.get("global_step")
    if counted:
        return max(counted)
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _finite(optimizer: OptimizerState | None) -> Question:
    if optimizer is None:
        return Question(verdict=Verdict.SKIP, message=_NO_STATE)
    bad = [t for t in optimizer.tensors if t.not_finite]
    n = sum(t.not_finite for t in bad)
    if bad:
        message = f"{n:,} numbers in the moments of {len(bad)} tensors are not finite, first {shown(bad[0].name)}"
        remedy = "the training diverged; lower the learning rate or train in fp32"
        return Question(verdict=Verdict.FAIL, effect=float(n), unit="numbers", message=f"{message}; {remedy}")
    if not optimizer.keeps_moments:
        return Question(verdict=Verdict.INCONCLUSIVE, message="the optimizer keeps no moments to look at")
    message = f"all moments of {len(optimizer.tensors)} tensors are finite"
    return Question(verdict=Verdict.PASS, effect=0.0, unit="numbers", message=message)


def _updated(optimizer: OptimizerState | None, steps: int | None) -> Question:
    if optimizer is None:
        return Question(verdict=Verdict.SKIP, message=_NO_STATE)
    total, ghosts = len(optimizer.tensors), _ghosts(optimizer)
    if not total:
        return Question(verdict=Verdict.FAIL, effect=0.0, unit="tensors", message="the optimizer was given no tensors")
    if why := _untold(optimizer, ghosts):
        return Question(verdict=Verdict.INCONCLUSIVE, message=why)
    share = f"{len(ghosts)} of {total} tensors"
    if not ghosts:
        message = f"all {total} tensors were updated"
        return Question(verdict=Verdict.PASS, effect=0.0, unit="tensors", message=message)
    names = ", ".join(shown(t.name, limit=60) for t in ghosts[:3])
    if steps == 1 and optimizer.keeps_moments:
        # B starts at 0, so the first gradient of every A is exactly 0.
        message = f"{share} have had no gradient in the only step there was ({names}); train longer"
        return Question(verdict=Verdict.INCONCLUSIVE, effect=float(len(ghosts)), unit="tensors", message=message)
    message = f"{share} were never updated ({names}): are they used in the forward pass, and is anything detached?"
    return Question(verdict=Verdict.FAIL, effect=float(len(ghosts)), unit="tensors", message=message)


def _untold(optimizer: OptimizerState, ghosts: Sequence[TrainedTensor]) -> str | None:
    """Return why the moments do not tell what was updated, or None where they do."""
    if not optimizer.keeps_moments and not optimizer.adaptive:
        return "the optimizer keeps no moments, so what it updated cannot be told"
    coded = sum(t.coded for t in optimizer.tensors)
    if coded and not ghosts:
        return (
            f"the moments of {coded} of {len(optimizer.tensors)} tensors are quantised in a way that sway cannot read"
        )
    return None


def _ghosts(optimizer: OptimizerState) -> list[TrainedTensor]:
    return [t for t in optimizer.tensors if t.zero is None or t.zero == 1.0]


def _long_enough(steps: int | None, trainer: Mapping[str, Any], spec: GradientGhostSpec) -> Question:
    epochs = _epochs(trainer)
    if steps is None and epochs is None:
        message = "neither the optimizer nor a trainer_state.json counts steps"
        return Question(verdict=Verdict.INCONCLUSIVE, message=message)
    done = " and ".join(part for part in (f"{steps:,} updates" if steps is not None else "", _passes(epochs)) if part)
    short = []
    if steps is not None and steps < spec.min_steps:
        short.append(f"fewer than {spec.min_steps} updates")
    if epochs is not None and epochs < spec.min_epochs:
        short.append(f"less than {spec.min_epochs:g} of the data")
    if short:
        message = f"{done}: {' and '.join(short)}; train longer"
        return Question(verdict=Verdict.WARN, effect=None if steps is None else float(steps), message=message)
    return Question(verdict=Verdict.PASS, effect=None if steps is None else float(steps), unit="updates", message=done)


def _epochs(trainer: Mapping[str, Any]) -> float | None:
    value = trainer.get("epoch")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _passes(epochs: float | None) -> str:
    return "" if epochs is None else f"{epochs:.2f} passes over the data"


def _evidence(optimizer: OptimizerState | None, trainer: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    tensors = optimizer.tensors if optimizer else ()
    seen = [t for t in tensors if t.zero is not None]
    rows = [
        {"label": shown(t.name), "value": t.zero, "steps": t.steps, "not_finite": t.not_finite}
        for t in sorted(tensors, key=lambda t: (-t.not_finite, -(2.0 if t.zero is None else t.zero)))
    ]
    return {
        "steps": steps,
        "epochs": _epochs(trainer),
        "counts": {"n_items": len(tensors), "n_tokens": 0, "n_clusters": len(tensors)},
        "never_updated": [shown(t.name) for t in _ghosts(optimizer)[:_MOST_ROWS]] if optimizer else [],
        "zero_share": sum((t.zero or 0.0) * t.n for t in seen) / sum(t.n for t in seen) if seen else None,
        "per_item": rows[:_MOST_ROWS],
        "items": worst_and_best([t.zero or 0.0 for t in seen], lambda i: {"label": shown(seen[i].name)}),
        "dropped": [],
        "smallest_decidable_effect": None,
    }
