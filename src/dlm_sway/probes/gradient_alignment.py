"""`gradient_alignment`: does the adapter point where one step of training on the target text would go?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.engine.ask import Sloped, Slopes, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import FEWEST
from dlm_sway.probes.claims import estimate_evidence, extremes, interval_of
from dlm_sway.probes.controls import matched_controls
from dlm_sway.probes.inputs import Items, clusters
from dlm_sway.stats.alignment import rotation_draws, rotation_sd
from dlm_sway.stats.multiplicity import max_t
from dlm_sway.stats.paired import Estimate, gain_difference
from dlm_sway.stats.ranks import rank_test

DRAWS = 999
_ROWS = 1000  # modules that the evidence names
_LAYER: Final = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")

F64: TypeAlias = npt.NDArray[np.float64]


class GradientAlignmentSpec(ProbeSpec):
    """Spec of `gradient_alignment`.

    Attributes:
        items: the text that was trained on.
        controls: texts that are subtracted; matched passages of the shipped corpus when none are given.
        max_sequences: texts that are differentiated at most, half of them controls; of more a choice by the run's seed.
        max_tokens: tokens of a text that are differentiated, its first ones.
        min_share: asserts that so large a part of the target's predicted gain is not shared by the controls; without it
            the direction is shown and not judged.
        level: p at or under which the direction counts as found.
    """

    kind: Literal["gradient_alignment"] = "gradient_alignment"
    items: Items = Field(min_length=1)
    controls: Items = ()
    max_sequences: int = Field(default=64, ge=2)
    max_tokens: int = Field(default=64, ge=1)
    min_share: float | None = Field(default=None, ge=0, lt=1)
    level: float = Field(default=0.001, ge=1 / (DRAWS + 1), lt=1)


@register("gradient_alignment")
class GradientAlignment(Probe[GradientAlignmentSpec]):
    """Does the adapter point where training on the target text would go, and in which layers?

    Asks: to first order in the weights, does the change make the target text more probable, and more so than control
        text of the same form?
    Null: rotation (N1), in closed form (the predicted gain is linear in B, so its sd under rotation is
        sqrt(sum over modules ||H||_F^2 / d_out), H = G R^T with B = Q R) and by 999 draws, which need no forward pass.
    Statistic: predicted gain sum over modules <G, B>, with G the gradient of the log-prob per token with respect to B
        at B = 0, of the target minus that of the controls; nat/token. By module and by layer with maxT.
    Passes when: never by itself; with `min_share`, when the target's predicted gain and its difference to the controls
        both have p <= 0.001, and the difference is that share of the gain or more and surely above zero over texts. A
        direction that is not found is a warning. It is a screen: a wrong document in a like tone is far beyond its
        rotations too (measured: z = 38, of the difference 4.0, 8 % of the gain; healthy: 56, 27, 37 %), the share
        depends on how far the target is from plain text, so no line fits all data, and a large step need not go where
        the slope points. So it never fails, has no score, and `target_gain` decides.
    Costs: one backward pass of the base over at most 64 texts of 64 tokens.
    """

    category: ClassVar[Category] = "attribution"
    spec_type: ClassVar[type[ProbeSpec]] = GradientAlignmentSpec

    def plan(self, spec: GradientAlignmentSpec, env: Env, seen: Seen) -> tuple[Slopes, ...]:
        """One round: slopes along the target and the controls."""
        if seen:
            return ()
        most = spec.max_sequences // 2
        items = _some(spec.items, most, env.rng(spec.name, "items"))
        controls = spec.controls or matched_controls(items, rng=env.rng(spec.name, "controls"))
        controls = _some(controls, most, env.rng(spec.name, "which controls"))
        return (Slopes(items, controls, format=env.format, max_tokens=spec.max_tokens),)

    def measure(self, spec: GradientAlignmentSpec, env: Env, seen: Seen) -> Found:
        """Predicted gains and their law under rotation.

        The draws are the probe's own, so it has no row in the suite's family; as a screen it needs none.
        """
        sloped: Sloped = seen[0][0]
        if sloped.refusal is not None or not sloped.modules:
            return Found(data={"sloped": sloped})
        parts = {what: _part(sloped, what, env.rng(spec.name, "rotations", what)) for what in ("target", "difference")}
        over_texts = gain_difference(
            sloped.items.sum(axis=1),
            sloped.tokens,
            clusters(sloped.ask.items),
            sloped.controls.sum(axis=1),
            sloped.control_tokens,
            clusters(sloped.ask.controls),
            rng=env.rng(spec.name, "interval"),
        )
        return Found(data={"sloped": sloped, "over_texts": over_texts, **parts})

    def judge(self, spec: GradientAlignmentSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim, which only screens: points_at_target."""
        del env, p  # not of the suite's family
        sloped: Sloped = found.data["sloped"]
        if "difference" not in found.data:
            why = sloped.refusal or "the adapter has no trained factor"
            claim = Question(verdict=Verdict.SKIP, message=f"no gradients: {why}")
            return result_of(spec, {"points_at_target": claim}, headline="points_at_target", score=None, evidence={})
        claim = _claim(spec, found)
        evidence = _evidence(spec, found)
        return result_of(spec, {"points_at_target": claim}, headline="points_at_target", score=None, evidence=evidence)


@dataclass(frozen=True, slots=True)
class _Part:
    """A predicted gain by module, and its law under rotation.

    Attributes:
        values: float64[M], nat per token.
        sd: float64[M], in closed form.
        draws: float64[M, n_draws].
        p: exact rank p of the sum over modules among its draws, that it is large.
        p_away: the same, that it is small.
        z: the sum over its closed-form standard deviation; None where that is zero.
    """

    values: F64
    sd: F64
    draws: F64
    p: float
    p_away: float
    z: float | None

    @property
    def total(self) -> float:
        return float(self.values.sum())

    @property
    def total_sd(self) -> float:
        return float(np.sqrt(self.sd @ self.sd))


def _some(items: tuple[TextItem, ...], most: int, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return at most `most` items, drawn without a look at any score, in their order."""
    return tuple(items[i] for i in sorted(rng.permutation(len(items))[:most].tolist()))


def _part(sloped: Sloped, what: str, rng: np.random.Generator) -> _Part:
    values = sloped.items.sum(axis=0) / sloped.tokens.sum()
    if what == "difference":
        values = values - sloped.controls.sum(axis=0) / sloped.control_tokens.sum()
    spectra, rows = sloped.spectra[what], sloped.d_out.tolist()
    sd = rotation_sd(spectra, rows)
    draws = rotation_draws(spectra, rows, n_draws=DRAWS, rng=rng)
    total, drawn = float(values.sum()), draws.sum(axis=0)
    p, p_away = rank_test(total, drawn, scale="linear").p, rank_test(-total, -drawn, scale="linear").p
    spread = float(np.sqrt(sd @ sd))
    return _Part(values, sd, draws, p, p_away, total / spread if spread > 0 else None)


def _claim(spec: GradientAlignmentSpec, found: Found) -> Question:
    difference: _Part = found.data["difference"]
    target: _Part = found.data["target"]
    over_texts: Estimate = found.data["over_texts"]
    ask = found.data["sloped"].ask
    n_texts = min(len(set(clusters(items))) for items in (ask.items, ask.controls))
    verdict, why = _verdict(spec, difference, target, over_texts, n_texts=n_texts)
    z = "" if difference.z is None else f" (z {difference.z:+.1f} among rotations)"
    return Question(
        verdict=verdict,
        effect=difference.total,
        unit="nat/token",
        interval=interval_of(over_texts),
        p=max(difference.p, target.p),
        null=f"rotation (N1), {DRAWS} draws without a forward pass",
        message=f"predicted gain {target.total:+.3g} nat/token, {difference.total:+.3g} beyond controls{z}: {why}"
        + "; `target_gain` decides" * (verdict is not Verdict.INCONCLUSIVE),
    )


def _verdict(
    spec: GradientAlignmentSpec, difference: _Part, target: _Part, over_texts: Estimate, *, n_texts: int
) -> tuple[Verdict, str]:
    share = difference.total / target.total if target.total > 0 else 0.0
    verdict, why = Verdict.WARN, "no direction that random ones would not have as often"
    if over_texts.low is None or n_texts < FEWEST:
        verdict, why = Verdict.INCONCLUSIVE, f"{n_texts} texts are too few; give at least {FEWEST}, also of controls"
    elif difference.p_away <= spec.level:
        why = "it points away from the target"
    elif difference.p <= spec.level < target.p:
        why = "it points away from the controls, not at the target"
    elif max(difference.p, target.p) <= spec.level:
        verdict, why = _found(spec, share, surely=over_texts.low > 0)
    return verdict, why


def _found(spec: GradientAlignmentSpec, share: float, *, surely: bool) -> tuple[Verdict, str]:
    """Judge a direction that no rotation has: by the share of it that controls do not have, where one is asserted."""
    if not surely:
        return Verdict.WARN, f"it points hardly more at the target than at other text ({share:.0%} of it)"
    why = f"it points at the target, as far as a slope can tell, and {share:.0%} of that is not shared by other text"
    if spec.min_share is None:
        return Verdict.SKIP, f"{why}; not judged: set `min_share` to assert a share"
    if share < spec.min_share:
        return Verdict.WARN, f"{why}, under the {spec.min_share:.0%} asserted"
    return Verdict.PASS, why


def _evidence(spec: GradientAlignmentSpec, found: Found) -> dict[str, Any]:
    sloped: Sloped = found.data["sloped"]
    difference: _Part = found.data["difference"]
    target: _Part = found.data["target"]
    layers = [_layer(name) for name in sloped.modules]
    return {
        "predicted_gain": _part_evidence(target),
        "beyond_controls": _part_evidence(difference),
        "minimum": spec.min_share,
        "share_beyond_controls": difference.total / target.total if target.total > 0 else None,
        "over_texts": estimate_evidence(found.data["over_texts"]),
        "layers": [
            {"module": name, "layer": layer, "value": float(value), "p": float(p)}
            for name, layer, value, p in zip(
                sloped.modules, layers, difference.values, _adjusted(difference.values, difference.draws), strict=True
            )
        ][:_ROWS],
        "by_layer": _by_layer(difference, layers),
        "left_out": list(sloped.left_out[:_ROWS]),
        "counts": {
            "n_items": len(sloped.items),
            "n_clusters": len(set(clusters(sloped.ask.items))),
            "n_tokens": int(sloped.tokens.sum()),
            "n_controls": len(sloped.controls),
            "n_modules": len(sloped.modules),
        },
        "items": extremes(sloped.ask.items, sloped.items.sum(axis=1), sloped.tokens),
        "smallest_decidable_effect": float(np.quantile(difference.draws.sum(axis=0), 1 - spec.level, method="higher")),
    }


def _part_evidence(part: _Part) -> dict[str, Any]:
    drawn = part.draws.sum(axis=0)
    return {
        "statistic": part.total,
        "p": part.p,
        "p_away": part.p_away,
        "z": part.z,
        "sd": part.total_sd,
        "sd_of_draws": float(drawn.std(ddof=1)),
        "null_draws": [float(x) for x in drawn[:199]],
        "n_draws": DRAWS,
    }


def _by_layer(part: _Part, layers: list[int | None]) -> list[dict[str, Any]]:
    """Return the sums over each layer's modules, with p by maxT over the layers; what is in no layer comes last."""
    names = sorted(set(layers), key=lambda k: (k is None, k or 0))
    member = np.array([[layer == name for layer in layers] for name in names], dtype=np.float64)  # [L, M]
    values, draws = member @ part.values, member @ part.draws
    p = _adjusted(values, draws)
    return [{"layer": k, "value": float(v), "p": float(q)} for k, v, q in zip(names, values, p, strict=True)]


def _adjusted(values: F64, draws: F64) -> F64:
    return max_t(np.concatenate([values[:, None], draws], axis=1)).p_adjusted


def _layer(module: str) -> int | None:
    found = _LAYER.search(module)
    return int(found[1]) if found else None
