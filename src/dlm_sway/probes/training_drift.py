"""`training_drift`: did the training go well? From its log alone, without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, field_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict, worst
from dlm_sway.data.training_log import Series, TrainingLog, read_training_log
from dlm_sway.engine.ask import Ask
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.stats.loss_curve import FEWEST, LossCurve, loss_curve

SURE: Final = 3.0
"""Standard errors from which a rise or a fall is no noise; chosen and checked by simulation."""
_FEW_SPIKES: Final = 3
_SPIKE_SHARE: Final = 0.01
_MOST_POINTS: Final = 200
_MARKS: Final = {Verdict.PASS: 1.0, Verdict.WARN: 0.5, Verdict.FAIL: 0.0}


class TrainingDriftSpec(ProbeSpec):
    """Spec of `training_drift`.

    Attributes:
        log: a `trainer_state.json`, JSONL with `step` and `loss`, or a directory that holds one.
        min_change: the smallest relative change of the training loss that counts, a difference of logarithms; where a
            loss is not positive, as with some objectives, the smallest absolute one.
        margin: the smallest rise of the held-out loss that counts, nat.
    """

    kind: Literal["training_drift"] = "training_drift"
    log: Path
    min_change: float = Field(default=0.05, gt=0)
    margin: float = Field(default=0.05, gt=0)

    @field_validator("log")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


@register("training_drift")
class TrainingDrift(Probe[TrainingDriftSpec]):
    """Did the training converge, without divergence, spikes or over-training? Read from its log.

    Asks: did the training loss fall and stay down, is every logged number finite, are spikes rare, and did the held-out
        loss follow?
    Null: the curve's own noise: its robust spread around a running median, correlation between neighbours allowed for.
    Statistic: `converges`: log of the median of the first 5 losses (of many, the first twentieth) over the last, and
        the rise over the last third (Theil-Sen). `steady`: points over 5 robust standard deviations above both what
        comes before and what comes after. `held_out`: last held-out loss minus its lowest.
    Passes when: the loss surely fell by 5 % or more (3 standard errors). Fails when it surely rose, or gave back more
        than half of its fall, when a number is not finite, or when the held-out loss ends 0.05 nat over where it began
        while the training loss fell. Warns of a rise in the last third, of spikes in over 1 % of points (3 at least),
        of a held-out loss 0.05 nat over its lowest.
    Costs: reading the log; no model.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = TrainingDriftSpec
    needs_model: ClassVar[bool | None] = False

    def plan(self, spec: TrainingDriftSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Ask nothing of a model."""
        del spec, env, seen
        return ()

    def measure(self, spec: TrainingDriftSpec, env: Env, seen: Seen) -> Found:
        """The log and the shape of its curve."""
        del env, seen
        log = read_training_log(spec.log)
        values = [v for _, v in log.loss if math.isfinite(v)]
        curve = loss_curve(values) if len(values) >= FEWEST else None
        return Found(data={"log": log, "curve": curve})

    def judge(self, spec: TrainingDriftSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Claims: finite, converges, steady, and held_out where there is a held-out loss."""
        del env, p
        log: TrainingLog = found.data["log"]
        curve: LossCurve | None = found.data["curve"]
        claims = {"finite": _finite(log), "converges": _converges(log, curve, spec.min_change)}
        if curve is not None:
            claims["steady"] = _steady(log, curve)
        held_out = [v for _, v in log.eval_loss if math.isfinite(v)]
        if held_out:
            claims["held_out"] = _held_out(held_out, curve, spec.margin)
        verdict = worst(c.verdict for c in claims.values())
        headline = next(name for name in ("converges", *claims) if claims[name].verdict is verdict)
        return result_of(
            spec, claims, headline=headline, score=_MARKS.get(verdict), evidence=_evidence(log, curve, held_out)
        )


def _finite(log: TrainingLog) -> Question:
    for name, series in (("loss", log.loss), ("held-out loss", log.eval_loss), ("gradient norm", log.grad_norm)):
        bad = [step for step, value in series if not math.isfinite(value)]
        if bad:
            share = f"{len(bad)} of {len(series)} logged values"
            message = f"the {name} is not finite at step {bad[0]} ({share}); lower the learning rate or train in fp32"
            return Question(verdict=Verdict.FAIL, effect=float(len(bad)), unit="values", message=message)
    zeros = [step for step, value in log.loss if value == 0]
    if zeros:
        message = f"the loss is exactly 0 at {len(zeros)} steps, first {zeros[0]}: were all labels masked?"
        return Question(verdict=Verdict.WARN, effect=float(len(zeros)), unit="values", message=message)
    n = len(log.loss) + len(log.eval_loss) + len(log.grad_norm)
    return Question(verdict=Verdict.PASS, effect=0.0, unit="values", message=f"all {n} logged values are finite")


def _converges(log: TrainingLog, curve: LossCurve | None, minimum: float) -> Question:
    if curve is None:
        n = len(log.loss)
        message = f"{n} logged losses show no curve; log at least {FEWEST} (`logging_steps`)"
        return Question(verdict=Verdict.INCONCLUSIVE, message=message)
    verdict, why = _direction(curve, minimum)
    return Question(
        verdict=verdict,
        effect=curve.fall,
        unit="log of start / end" if curve.logs else "loss",
        interval=(curve.fall - 1.96 * curve.fall_se, curve.fall + 1.96 * curve.fall_se),
        null=f"noise of the curve, {SURE:g} standard errors",
        message=f"loss {curve.start:.3g} to {curve.end:.3g}: {why}",
    )


def _direction(curve: LossCurve, minimum: float) -> tuple[Verdict, str]:
    sure = SURE * curve.fall_se
    fell, rose = curve.fall > max(sure, minimum), -curve.fall > max(sure, minimum)
    # The lowest running median is the luckiest of many, so what was given back has to clear twice the noise.
    back = curve.given_back > max(2 * sure, minimum) and curve.given_back > 0.5 * (curve.fall + curve.given_back)
    if rose:
        return Verdict.FAIL, "it rose; lower the learning rate"
    if back:
        return (
            Verdict.FAIL,
            f"it gave back more than half of its fall to {curve.lowest:.3g}; keep an earlier checkpoint",
        )
    if curve.late_rise > max(SURE * curve.late_rise_se, minimum):
        rise = f"{math.expm1(curve.late_rise):.0%}" if curve.logs else f"{curve.late_rise:.2g}"
        return Verdict.WARN, f"it rises by {rise} over the last third; keep an earlier checkpoint"
    if fell:
        return Verdict.PASS, "it fell and stayed down"
    return Verdict.INCONCLUSIVE, (
        f"no fall that its noise ({curve.noise_sd:.2g} a point) would not make; train longer, or log means of steps"
    )


def _steady(log: TrainingLog, curve: LossCurve) -> Question:
    n, spikes = len(log.loss), len(curve.spikes)
    many = spikes >= max(_FEW_SPIKES, _SPIKE_SHARE * n)
    steps = [step for step, value in log.loss if math.isfinite(value)]
    where = ", ".join(str(steps[i]) for i in curve.spikes[:5])
    message = f"{spikes} spikes in {n} points{f', at steps {where}' if spikes else ''}"
    return Question(
        verdict=Verdict.WARN if many else Verdict.PASS,
        effect=spikes / n,
        unit="of points",
        null=f"at most {_SPIKE_SHARE:.0%} of points, or {_FEW_SPIKES - 1}",
        message=f"{message}: look at these batches, or clip gradients" if many else message,
    )


def _held_out(losses: Sequence[float], curve: LossCurve | None, margin: float) -> Question:
    if len(losses) < 2:  # noqa: PLR2004 (one value has no direction)
        message = "one held-out loss has no direction; evaluate during training (`eval_steps`)"
        return Question(verdict=Verdict.INCONCLUSIVE, message=message)
    rise, worse = losses[-1] - min(losses), losses[-1] - losses[0]
    learning = curve is not None and curve.fall > 0
    fell = losses[0] - losses[-1] > margin
    verdict, why = Verdict.PASS, "it fell and stayed down" if fell else "it did not turn up, and hardly fell"
    if worse > margin and learning:
        verdict, why = Verdict.FAIL, f"it ends {worse:.2f} over its first value while the training loss falls"
    elif rise > margin:
        verdict, why = Verdict.WARN, f"it turned up by {rise:.2f} nat; the checkpoint at its lowest generalises better"
    message = f"held-out loss {losses[0]:.3g}, lowest {min(losses):.3g}, last {losses[-1]:.3g}: {why}"
    return Question(verdict=verdict, effect=rise, unit="nat", null=f"margin {margin:g} nat", message=message)


def _evidence(log: TrainingLog, curve: LossCurve | None, held_out: Sequence[float]) -> dict[str, Any]:
    curves = [_drawn("training loss", log.loss)]
    if held_out:
        curves.append(_drawn("held-out loss", log.eval_loss))
    shape: dict[str, Any] = {}
    if curve is not None:
        shape = {
            "start": curve.start,
            "end": curve.end,
            "lowest": curve.lowest,
            "convergence_ratio": curve.end / curve.start if curve.start else None,
            "noise_sd": curve.noise_sd,
            "spike_steps": [log.loss[i][0] for i in curve.spikes[:50]] if not _gaps(log.loss) else [],
            "late_rise": curve.late_rise,
            "smallest_decidable_effect": SURE * curve.fall_se,
        }
    return {
        **shape,
        "curves": curves,
        "counts": {"n_items": len(log.loss), "n_tokens": 0, "n_clusters": len(log.loss)},
        "repeated_steps": log.repeated,
        "dropped": [{"label": "losses that are not finite", "why": str(_gaps(log.loss))}] if _gaps(log.loss) else [],
    }


def _gaps(series: Series) -> int:
    return sum(not math.isfinite(v) for _, v in series)


def _drawn(name: str, series: Series) -> dict[str, Any]:
    """Return a curve of at most 200 points: medians of equal stretches where there are more."""
    kept = [(s, v) for s, v in series if math.isfinite(v)]
    parts = np.array_split(np.arange(len(kept)), min(len(kept), _MOST_POINTS)) if kept else []
    return {
        "name": name,
        "x": [kept[part[-1]][0] for part in parts],
        "x_label": "step",
        "y": [float(np.median([kept[i][1] for i in part])) for part in parts],
        "low": None,
        "high": None,
        "unit": "nat/token",
        "minimum": None,
    }
