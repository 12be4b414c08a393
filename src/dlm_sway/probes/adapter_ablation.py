"""`adapter_ablation`: how does the effect grow with the adapter's scale, and is the trained scale the right one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import scaled
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.claims import extremes, power_line
from dlm_sway.probes.dose import CUT, dose_claim, dose_evidence, dose_of, sweep_asks
from dlm_sway.probes.inputs import Items, clusters, subset
from dlm_sway.stats.curves import FEWEST, SUPPORT, Shape, shape
from dlm_sway.stats.dose import MARGIN
from dlm_sway.stats.paired import gain

_GAIN: Final[frozenset[Reducer]] = frozenset({"gain"})
_WORDS: Final = {
    "healthy": "smooth and rising",
    "saturated": "most of the effect is there at half the scale already",
    "step": "nearly all of the effect comes in one step",
    "overshoot-and-crash": "beyond its best scale the gain is lost or the effect falls",
    "flat": "no effect at any scale",
}


class AdapterAblationSpec(ProbeSpec):
    """Spec of `adapter_ablation`.

    Attributes:
        prompts: texts for the effect; the built-in 32 when none are given.
        items: the data the fine-tune was trained on.
        held_out: data of the same source that it was not trained on; where given, the advice goes by its gain.
        controls: other text, for harm; the shipped corpus when none are given.
        lambdas: scales; 0, where nothing is changed, is understood and may be left out.
        margin: the largest loss that counts as no harm, nat per token.
        text_tokens: about how many tokens of `items` and of `held_out` are read.
        control_tokens: about how many tokens of the controls are read.
    """

    kind: Literal["adapter_ablation"] = "adapter_ablation"
    prompts: Items = ()
    items: Items = ()
    held_out: Items = ()
    controls: Items = ()
    lambdas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    margin: float = Field(default=MARGIN, gt=0)
    text_tokens: int = Field(default=3000, ge=64)
    control_tokens: int = Field(default=4000, ge=64)

    @field_validator("lambdas")
    @classmethod
    def _a_sweep(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        positive = [lam for lam in value if lam != 0.0]
        if not all(np.isfinite(value)) or min(value, default=-1.0) < 0 or list(value) != sorted(set(value)):
            raise ValueError("scales must rise, be finite and not negative")
        if len(positive) < 3 or 1.0 not in positive or positive[0] > 0.5:  # noqa: PLR2004 (a curve needs three points)
            raise ValueError("give at least three scales above 0, 1 among them and one up to 0.5")
        return value


@register("adapter_ablation")
class AdapterAblation(Probe[AdapterAblationSpec]):
    """How does the effect grow with the adapter's scale, and is the trained scale the right one?

    Asks: is the response to scaling smooth and rising, and does another scale gain more without harm (`dose`)?
    Null: none is drawn; scale 0 is the base, and the numeric floor (N0) tells an effect from none.
    Statistic: mean KL to the base on the prompts, gain in log-prob per token on target and held-out text, loss on
        control text, at each scale; resamples over clusters name the shape: healthy, saturated, step,
        overshoot-and-crash, flat.
    Passes when: 90 % of the resamples are healthy; a linear and a quadratic response both are. Warns when saturated,
        step, or overshoot-and-crash; fails when flat, or when in 90 % the gain has crashed at scale 1 already, even if
        a larger scale wins it back. `dose` warns when a scale under 0.8 has surely less harm or more gain, or when the
        gain still rises at the largest; it names the command, and applies nothing.
    Costs: 5 views of the prompts, of about 3,000 tokens of target and of held-out text, and of 4,000 control tokens.
    """

    category: ClassVar[Category] = "ablation"
    spec_type: ClassVar[type[ProbeSpec]] = AdapterAblationSpec

    def plan(self, spec: AdapterAblationSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: all texts under the adapter at every scale."""
        if seen or env.scale_refusal:
            return ()
        return tuple(_asks(spec, env).values())

    def measure(self, spec: AdapterAblationSpec, env: Env, seen: Seen) -> Found:
        """The shape of the response, and the dose where there is text that is meant to gain."""
        if env.scale_refusal:
            return Found()
        sets: dict[str, Scores] = dict(zip(_asks(spec, env), seen[0], strict=True))
        what = _gaining(sets)
        data: dict[str, Any] = {"sets": sets, "what": what, "shape": _shape(spec, env, sets, what)}
        if what is not None:
            rng = env.rng(spec.name, "dose")
            data["dose"] = dose_of(sets[what], sets["control"], rng=rng, margin=spec.margin, alpha=env.alpha)
        return Found(data=data)

    def judge(self, spec: AdapterAblationSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims: shape, and dose where there is text that is meant to gain."""
        del p  # nothing is compared with a null
        if env.scale_refusal:
            claim = Question(verdict=Verdict.SKIP, message=f"the adapter has no scale: {env.scale_refusal}")
            return result_of(spec, {"shape": claim, "dose": claim}, headline="shape", evidence={}, score=None)
        sets, response = found.data["sets"], found.data["shape"]
        claims = {"shape": _claim(response), "dose": _no_text()}
        evidence = {
            "shape": _shape_evidence(response),
            "curves": _curves(spec, env, sets),
            "counts": _counts(sets),
            "items": _items(sets, found.data["what"], _scales(spec).index(1.0)),
            "smallest_decidable_effect": _smallest_harm(spec, env, sets["control"]),
            "dropped": [],
            "numeric_floor": env.floor,
        }
        if "dose" in found.data:
            name = _NAMES[found.data["what"]]
            claims["dose"] = dose_claim(found.data["dose"], what=name)
            evidence["dose"] = dose_evidence(found.data["dose"], what=name)
        headline = "dose" if claims["shape"].verdict is Verdict.PASS and _warns(claims["dose"]) else "shape"
        return result_of(spec, claims, headline=headline, score=_score(claims), evidence=evidence)


_NAMES: Final = {"held_out": "held-out", "target": "target"}
_TITLES: Final = {
    "effect": "effect on the prompts (KL)",
    "target": "gain on target text",
    "held_out": "gain on held-out text",
    "control": "loss on control text",
}


def _asks(spec: AdapterAblationSpec, env: Env) -> dict[str, Ask]:
    """Return the asks by the set that each is about."""
    lambdas = _scales(spec)
    views = tuple(map(scaled, lambdas))
    prompts = spec.prompts or tuple(TextItem("", p, str(i), f"prompt {i + 1}") for i, p in enumerate(GENERAL_PROMPTS))
    asks = {"effect": Ask(prompts, views, frozenset({"kl"}), format=env.format, max_tokens=CUT)}
    texts = spec.held_out or spec.items or prompts
    main, control = sweep_asks(
        texts,
        spec.controls,
        env,
        name=spec.name,
        lambdas=lambdas,
        text_tokens=spec.text_tokens,
        control_tokens=spec.control_tokens,
    )
    if spec.held_out or spec.items:
        asks["held_out" if spec.held_out else "target"] = main
    if spec.held_out and spec.items:
        some = subset(spec.items, tokens=spec.text_tokens, cut=CUT, rng=env.rng(spec.name, "items"))
        asks["target"] = Ask(some, views, _GAIN, format=env.format, max_tokens=CUT)
    return asks | {"control": control}


def _scales(spec: AdapterAblationSpec) -> tuple[float, ...]:
    return tuple(lam for lam in spec.lambdas if lam != 0.0)


def _gaining(sets: Mapping[str, Scores]) -> str | None:
    return next((name for name in _NAMES if name in sets), None)


def _means(scores: Scores) -> npt.NDArray[np.float64]:
    return np.asarray(scores.item_sums("kl") / scores.tokens, dtype=np.float64)


def _shape(spec: AdapterAblationSpec, env: Env, sets: Mapping[str, Scores], what: str | None) -> Shape:
    effect = sets["effect"]
    text = None if what is None else sets[what]
    return shape(
        _scales(spec),
        np.maximum(_means(effect), 0.0),  # rounding may leave a KL of nothing at -1e-12
        clusters(effect.items),
        None if text is None else text.item_sums("gain"),
        None if text is None else text.tokens,
        None if text is None else clusters(text.items),
        floor=env.floor,
        rng=env.rng(spec.name, "shape"),
    )


def _claim(found: Shape) -> Question:
    growth, near = found.features["growth"], found.features["exponent"]
    verdict = Verdict.PASS if found.name == "healthy" else Verdict.WARN
    if found.name == "flat" or found.crashed_at_full:
        verdict = Verdict.FAIL
    message = f"{found.name}: {_WORDS[found.name]}{_at_full(found)}"
    if found.name != "flat" and near.estimate is not None and growth.estimate is not None:
        message += f" (grows with exponent {near.estimate:.1f} near 0, {growth.estimate:.1f} from half to full scale)"
    if not found.support:
        verdict, message = (
            Verdict.INCONCLUSIVE,
            f"looks {message}; give at least {FEWEST} texts of each kind, better 30",
        )
    elif not found.decided:
        shares = sorted(found.support.items(), key=lambda item: -item[1])
        between = ", ".join(f"{name} in {100 * share:.0f} %" for name, share in shares)
        more = f"about {4 * found.n_clusters} texts would halve the doubt"
        verdict, message = Verdict.INCONCLUSIVE, f"looks {found.name}, not decided ({between} of resamples); {more}"
    interval = None if growth.low is None or growth.high is None else (growth.low, growth.high)
    return Question(
        verdict=verdict,
        effect=growth.estimate,
        unit="exponent of the effect from half to full scale",
        interval=interval,
        null="named shapes, by resamples over clusters",
        message=message,
    )


def _at_full(found: Shape) -> str:
    if found.crashed_at_full:
        return "; the gain is lost at scale 1 already"
    if found.at_full is None or found.at_full <= 1 - SUPPORT:
        return ""
    return f"; the gain is perhaps lost at scale 1 already (in {100 * found.at_full:.0f} % of resamples)"


def _no_text() -> Question:
    return Question(verdict=Verdict.SKIP, message="give items or held_out: without text that is meant to gain, no dose")


def _warns(claim: Question) -> bool:
    return claim.verdict is Verdict.WARN


def _shape_evidence(found: Shape) -> dict[str, Any]:
    return {
        "name": found.name,
        "decided": found.decided,
        "support": dict(found.support),
        "crashed_at_full": found.crashed_at_full,
        "support_at_full": found.at_full,
        "features": {k: {"estimate": f.estimate, "low": f.low, "high": f.high} for k, f in found.features.items()},
        "method": found.method,
    }


def _curves(spec: AdapterAblationSpec, env: Env, sets: Mapping[str, Scores]) -> list[dict[str, Any]]:
    return [_curve(spec, env, name, scores) for name, scores in sets.items()]


def _curve(spec: AdapterAblationSpec, env: Env, name: str, scores: Scores) -> dict[str, Any]:
    rng = env.rng(spec.name, "curve", name)
    if name == "effect":
        rows, tokens = _means(scores), np.ones(len(scores.items), dtype=np.int64)  # items are weighted equally
    else:
        rows, tokens = scores.item_sums("gain") * (-1 if name == "control" else 1), scores.tokens
    found = [gain(row, tokens, clusters(scores.items), rng=rng) for row in rows]
    bounded = all(f.low is not None for f in found)
    return {
        "name": _TITLES[name],
        "x": [0.0, *_scales(spec)],
        "x_label": "scale of the adapter",
        "y": [0.0, *(f.estimate for f in found)],
        "low": [0.0, *(f.low for f in found)] if bounded else None,
        "high": [0.0, *(f.high for f in found)] if bounded else None,
        "unit": "nat/token",
        "minimum": spec.margin if name == "control" else None,
    }


def _counts(sets: Mapping[str, Scores]) -> dict[str, Any]:
    return {
        "n_items": sum(len(s.items) for s in sets.values()),
        "n_tokens": sum(int(s.tokens.sum()) for s in sets.values()),
        "n_clusters": sum(len(set(clusters(s.items))) for s in sets.values()),
        "by_set": {name: len(s.items) for name, s in sets.items()},
    }


def _items(sets: Mapping[str, Scores], what: str | None, full: int) -> dict[str, Any]:
    """Return the texts that gain most and least at scale 1; without such texts the prompts that move most and least."""
    if what is None:
        return extremes(sets["effect"].items, sets["effect"].item_sums("kl")[full], sets["effect"].tokens)
    return extremes(sets[what].items, sets[what].item_sums("gain")[full], sets[what].tokens)


def _smallest_harm(spec: AdapterAblationSpec, env: Env, control: Scores) -> float | None:
    """Return the smallest loss at scale 1 that this much control text would have shown."""
    row = control.item_sums("gain")[_scales(spec).index(1.0)]
    return power_line(gain(row, control.tokens, clusters(control.items), rng=env.rng(spec.name, "power")))


def _score(claims: Mapping[str, Question]) -> float | None:
    """Map the claims to [0, 1]: a healthy shape is 1, one to be warned of 0.5; a better dose takes a quarter."""
    marks = {Verdict.PASS: 1.0, Verdict.WARN: 0.5, Verdict.FAIL: 0.0}
    mark = marks.get(claims["shape"].verdict)
    return None if mark is None else mark * (0.75 if _warns(claims["dose"]) else 1.0)
