"""`target_gain`: did the fine-tune move toward the user's data, and does that carry over to text it has not seen?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED, View
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.claims import (
    Measured,
    at_least,
    estimate_evidence,
    extremes,
    interval_of,
    item_records,
    null_evidence,
    power_line,
    too_few_draws,
)
from dlm_sway.probes.controls import Gains, lead_over, matched_controls
from dlm_sway.probes.directional import by_null
from dlm_sway.probes.inputs import Items, clusters, require_unseen
from dlm_sway.probes.units import PER_TOKEN
from dlm_sway.probes.unsaturated import CUT, lam_star, pilot_ask, seen_by_nulls
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.power import clusters_for_bound, draws_needed
from dlm_sway.stats.standardise import expected_gain

FEWEST = 5  # an exact sign-flip test of fewer clusters cannot reach 5 %
_GAIN: frozenset[Reducer] = frozenset({"gain"})


class TargetGainSpec(ProbeSpec):
    """Spec of `target_gain`.

    Attributes:
        items: the data the fine-tune was trained on.
        held_out: data of the same source that it was not trained on.
        controls: texts of the same form and other content; matched passages of the shipped corpus when none are given.
        min_gain: the smallest gain worth a pass, and the smallest lead over the controls, nat per token.
        max_tokens: score at most so many tokens of a text, its first ones; all of them when not given.
        null_tokens: about how many tokens of each set a null sees.
    """

    kind: Literal["target_gain"] = "target_gain"
    items: Items = Field(min_length=1)
    held_out: Items = ()
    controls: Items = ()
    min_gain: float = Field(default=0.05, gt=0)
    max_tokens: int | None = Field(default=None, ge=16)
    null_tokens: int = Field(default=192, ge=16)

    @model_validator(mode="after")
    def _disjoint(self) -> TargetGainSpec:
        require_unseen(self.items, self.held_out)
        return self


@register("target_gain")
class TargetGain(Probe[TargetGainSpec]):
    """Did the fine-tune move toward your data, and does it generalise?

    Asks: is your text more probable after the fine-tune, more so than other text of the same form?
    Null: rotation (N1) for the direction, at the scale lam* <= 1 where nulls have not broken the model (`delta_kl`);
        resampling of items (by cluster) for the interval.
    Statistic: gain in log-prob per token at scale 1, sum(l_ft - l_base) / sum(tokens), on target, held-out and control
        texts.
        The difference to the controls is taken at equal difficulty: any change moves tokens that the base finds
        improbable more, so the controls' gain is regressed on the base's log-prob (analysis of covariance).
    Passes when: the gain and its difference to the controls are both >= 0.05 nat/token with lower bounds > 0, and the
        gain exceeds every share of nulls that maxT asks for. Fails where it is surely less, or the nulls clearly do as
        well (rank p >= 0.2). `generalises`: the same on held-out text. Between two
        tokenizers gains are in bit/byte, and a minimum in nat/token is taken at four bytes a token.
    Costs: one pass of all texts for base and fine-tune, and (n_draws + 2) views of about 200 tokens a set.
    """

    category: ClassVar[Category] = "attribution"
    spec_type: ClassVar[type[ProbeSpec]] = TargetGainSpec
    per_byte: ClassVar[bool] = True

    def plan(self, spec: TargetGainSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Round 1: all texts under the fine-tune, and a pilot for lam*. Round 2: all draws at lam*."""
        if not seen:
            most = env.unit.positions(spec.max_tokens)
            sets = _sets(spec, env).values()
            real = [Ask(items, (FINETUNED,), _GAIN, format=env.format, max_tokens=most) for items in sets]
            return tuple(real) if env.null_refusal else (*real, pilot_ask(spec.items, env))
        if len(seen) > 1 or env.null_refusal:
            return ()
        views = env.adapter_and_nulls(lam_star(seen[0][-1]))
        return tuple(null_ask(spec, env, views, name) for name in _null_sets(spec))

    def measure(self, spec: TargetGainSpec, env: Env, seen: Seen) -> Found:
        """Gains with intervals, differences to the controls, and the null tests."""
        sets = dict(zip(_sets(spec, env), map(env.unit.of, seen[0]), strict=False))
        under_nulls = {} if env.null_refusal else dict(zip(_null_sets(spec), seen[1], strict=True))
        tests = tuple(
            NullTest(name, float(s.per_token("gain")[0]), s.per_token("gain")[1:], "linear")
            for name, s in under_nulls.items()
        )
        lam = None if env.null_refusal else lam_star(seen[0][-1])
        return Found(tests, {"sets": sets, "lam": lam})

    def judge(self, spec: TargetGainSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims: on_target, and generalises when there is held-out data."""
        spec = spec.model_copy(update={"min_gain": env.unit.threshold(spec.min_gain)})
        sets: dict[str, Scores] = found.data["sets"]
        control = sets["control"]
        claims: dict[str, Question] = {}
        evidence: dict[str, Any] = {"dropped": []}
        for name in _null_sets(spec):
            part = _Part(spec, env, name, sets[_SET_OF[name]], control)
            test = next((t for t in found.tests if t.name == name), None)
            asked = {"null_unit": "nat/token", "lam_star": found.data["lam"]}
            null = null_evidence(test, p[name]) | asked if test else None
            claims[name] = part.claim(null)
            evidence[name] = part.evidence() | {"null": null}
        measured = {name: _measured(spec, env, sets[_SET_OF[name]]) for name in _null_sets(spec)}
        evidence |= item_records(measured, seed=env.seed)
        evidence["control"] = estimate_evidence(_gain(control, env, spec.name, "control"))
        if spec.held_out:
            evidence["kept_on_held_out"] = _ratio(evidence)
        main = evidence["on_target"]
        evidence |= {"null_draws": (main["null"] or {}).get("null_draws", [])}
        evidence |= {"statistic": (main["null"] or {}).get("statistic")}
        evidence |= {"minimum": dict.fromkeys(claims, spec.min_gain), "lam_star": found.data["lam"]}
        return result_of(spec, claims, headline="on_target", score=_score(claims, env), evidence=evidence)


_LEARNED = {
    "on_target": "what the fine-tune learned is in this text",
    "generalises": "what it learned carries over to text it has not seen",
}
_SET_OF = {"on_target": "target", "generalises": "held_out"}


def _sets(spec: TargetGainSpec, env: Env) -> dict[str, tuple[TextItem, ...]]:
    controls = spec.controls or matched_controls(spec.items, rng=env.rng(spec.name, "controls"))
    held_out = {"held_out": spec.held_out} if spec.held_out else {}
    return {"target": spec.items, "control": controls, **held_out}


def _null_sets(spec: TargetGainSpec) -> dict[str, tuple[TextItem, ...]]:
    held_out = {"generalises": spec.held_out} if spec.held_out else {}
    return {"on_target": spec.items, **held_out}


def null_ask(spec: TargetGainSpec, env: Env, views: tuple[View, ...], name: str = "on_target") -> Ask:
    """Return what nulls are asked about one set of texts: the part of it that each of them sees."""
    items = _null_sets(spec)[name]
    some = seen_by_nulls(items, env, tokens=spec.null_tokens)
    return Ask(some, views, _GAIN, format=env.format, max_tokens=CUT)


def _gain(scores: Scores, env: Env, *words: str) -> Estimate:
    return gain(scores.item_sums("gain")[0], scores.tokens, clusters(scores.items), rng=env.rng(*words))


def _measured(spec: TargetGainSpec, env: Env, scores: Scores) -> Measured:
    gains = scores.item_sums("gain")[0]
    return Measured(scores.items, gains, scores.tokens, env.unit.name, "higher", spec.min_gain)


class _Part:
    """One set of texts against the controls."""

    def __init__(self, spec: TargetGainSpec, env: Env, name: str, scores: Scores, control: Scores) -> None:
        self.spec, self.env, self.name, self.scores = spec, env, name, scores
        self.gain = _gain(scores, env, spec.name, name)
        expected = expected_gain(control.base_logprob, control.values["gain"][0])
        names = clusters(scores.items)
        own = Gains(scores.values["gain"][0], scores.base_logprob, scores.offsets[:-1], scores.tokens, names)
        self.contrast = lead_over(control, expected, own, rng=env.rng(spec.name, name, "contrast"))

    def claim(self, null: Mapping[str, Any] | None) -> Question:
        """Return the verdict on this set."""
        verdict, why = self._verdict(null)
        g = self.gain
        lead = f"{self.contrast.estimate:+.3f} more than on other text as hard"
        return Question(
            verdict=verdict,
            effect=g.estimate,
            unit=self.env.unit.name,
            interval=interval_of(g),
            p=g.p if null is None else null["p_adjusted"],
            null=self.env.null_name if null else "sign flip of paired gains (N5)",
            message=f"gain {g.estimate:+.3f} {self.env.unit.name}{_of_the_first(self.spec)}, {lead}: {why}",
        )

    def evidence(self) -> dict[str, Any]:
        """Return what the verdict is made of."""
        totals = self.scores.item_sums("gain")[0]
        own = "base_nats_per_token" if self.env.unit is PER_TOKEN else "base_bits_per_byte"
        return {
            "gain": estimate_evidence(self.gain),
            "against_control": estimate_evidence(self.contrast),
            "smallest_decidable_effect": power_line(self.gain, minimum=self.spec.min_gain),
            own: float(-np.nanmean(self.scores.base_logprob)),
            "items": extremes(self.scores.items, totals, self.scores.tokens),
        }

    def _verdict(self, null: Mapping[str, Any] | None) -> tuple[Verdict, str]:
        minimum, g, alpha = self.spec.min_gain, self.gain, self.env.alpha
        by_gain, by_contrast = at_least(g, minimum), at_least(self.contrast, minimum)
        draws, needed = (null or {}).get("n_draws", 0), draws_needed(alpha, family=1)
        verdict, why = Verdict.PASS, _LEARNED[self.name]
        if g.n_clusters < FEWEST:
            verdict = Verdict.INCONCLUSIVE
            why = f"{_count(g.n_clusters)} cannot decide; give at least {FEWEST}, better 30"
        elif by_gain is Verdict.FAIL:
            verdict, why = Verdict.FAIL, f"under the minimum of {minimum} {self.env.unit.name}"
        elif by_contrast is Verdict.FAIL:
            verdict, why = Verdict.FAIL, f"not {minimum} {self.env.unit.name} better than other text of the same form"
        elif null is not None and draws < needed:
            verdict, why = Verdict.INCONCLUSIVE, too_few_draws(draws, needed, alpha)
        elif null is not None and null["p_adjusted"] > alpha and g.estimate >= minimum:
            verdict, why = by_null(null, "items")
        elif Verdict.INCONCLUSIVE in (by_gain, by_contrast):
            verdict, why = Verdict.INCONCLUSIVE, self._more_data()
        return verdict, why

    def _more_data(self) -> str:
        have, needed = self.gain.n_clusters, 0
        minimum = self.spec.min_gain
        for estimate in (self.gain, self.contrast):
            if at_least(estimate, minimum) is not Verdict.INCONCLUSIVE:
                continue
            # From the minimum on, the bound has to clear zero; below it, the bound on the other side the minimum.
            gap = estimate.estimate if estimate.estimate >= minimum else minimum - estimate.estimate
            if not estimate.se or gap < 0.01 * estimate.se:
                return f"{_count(have)} do not decide: the effect lies at the minimum of {minimum:.2g}"
            sd = estimate.se * have**0.5
            needed = max(needed, clusters_for_bound(sd, gap, alpha=0.025))
        return f"{_count(have)} do not decide; about {max(needed, have + 1)} would"


def _of_the_first(spec: TargetGainSpec) -> str:
    return "" if spec.max_tokens is None else f" of the first {spec.max_tokens} tokens"


def _count(n: int) -> str:
    return "1 item" if n == 1 else f"{n} items"


def _ratio(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share of the gain that held-out text keeps, with an interval by the delta method on both gains."""
    held, trained = evidence["generalises"]["gain"], evidence["on_target"]["gain"]
    if trained["estimate"] <= 0 or trained["se"] is None or held["se"] is None:
        return {"ratio": None, "interval": None}
    ratio = held["estimate"] / trained["estimate"]
    se = float(np.hypot(held["se"], ratio * trained["se"]) / trained["estimate"])
    return {"ratio": ratio, "interval": [ratio - 1.96 * se, ratio + 1.96 * se], "method": "delta method"}


def _score(claims: Mapping[str, Question], env: Env) -> float | None:
    """Map the claims to [0, 1]: each passing claim counts by its gain, full marks at 0.5 nat/token."""
    marks: list[float] = []
    for claim in claims.values():
        if claim.verdict is Verdict.INCONCLUSIVE:
            continue
        passed = claim.verdict is Verdict.PASS and claim.effect is not None
        marks.append(min(1.0, 0.5 + (claim.effect or 0.0) / env.unit.per_token) if passed else 0.0)
    return sum(marks) / len(marks) if marks else None
