"""`delta_kl`: is the adapter applied, and was its change learned?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED, View
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Ask, Position, Reducer, Request, Scores, TextItem
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.claims import (
    Measured,
    estimate_evidence,
    extremes,
    interval_of,
    item_records,
    null_evidence,
    standing,
    too_few_draws,
)
from dlm_sway.probes.inputs import Items, clusters, opening
from dlm_sway.probes.sampled_text import SampledText, SampledTextSpec
from dlm_sway.probes.unsaturated import CUT, lam_star, pilot_ask, seen_by_nulls
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.power import draws_needed

FLOOR_MULTIPLE = 10.0
TEXTS = 32  # prompts of the test on sampled text


_TEXT = SampledText()


class DeltaKLSpec(ProbeSpec):
    """Spec of `delta_kl`.

    Attributes:
        prompts: texts; the built-in 32 when none are given.
        position: every token of a text, or the next token after it.
        divergence: what `learned` compares; `kl` is KL(base || view), which `applied` takes whatever stands here.
        max_tokens: score at most so many tokens of a text, its first ones; all of them when not given.
        null_tokens: about how many tokens each null sees.
        min_ratio: the smallest ratio to the median null worth a pass.
    """

    kind: Literal["delta_kl"] = "delta_kl"
    prompts: Items = ()
    position: Literal["all", "last"] = "all"
    divergence: Literal["kl", "js", "tv"] = "kl"
    max_tokens: int | None = Field(default=None, ge=16)
    null_tokens: int = Field(default=192, ge=16)
    min_ratio: float = Field(default=1.2, gt=1)


@register("delta_kl")
class DeltaKL(Probe[DeltaKLSpec]):
    """Is the adapter applied at all, and was its change learned?

    Asks: does the fine-tune differ from the base, and by more than an unstructured change of the same size?
    Null: rotation (N1): each module keeps A and its singular values, its output side turns at random.
    Statistic: mean divergence to the base per position, then item, then cluster; nat. `applied` at scale 1, in KL,
        against the numeric floor N0. `learned` at the scale lam* <= 1 where the median KL of a few rotations of their
        own is about 0.07 nat, so that a strong adapter does not saturate; they are no nulls of the test, so p stays
        exact.
    Passes when: applied is over 10 x N0, and learned has p <= alpha after maxT and a ratio >= 1.2 to the median null.
        `learned` fails where p is over alpha even before maxT, and is open between the two.
        Where a server gives no log-probs, `applied` is answered by `sampled_text`, and `learned` is skipped.
    Costs: one pass of all texts for base and fine-tune, and (n_draws + 2) views of about 200 tokens.
    """

    category: ClassVar[Category] = "adherence"
    spec_type: ClassVar[type[ProbeSpec]] = DeltaKLSpec

    def plan(self, spec: DeltaKLSpec, env: Env, seen: Seen) -> tuple[Request, ...]:
        """Round 1: effect at scale 1, and a pilot for lam*. Round 2: all draws at lam*."""
        if env.scores_refusal:
            return _TEXT.plan(_as_text(spec, env), env, seen)
        if not seen:
            items = _items(spec)
            plain = _ask(spec, env, items, (FINETUNED,), cut=spec.max_tokens)
            if env.null_refusal:
                return (plain,)
            return plain, pilot_ask(items, env, position=_position(spec))
        if len(seen) > 1 or env.null_refusal:
            return ()
        return (null_ask(spec, env, env.adapter_and_nulls(lam_star(seen[0][1]))),)

    def measure(self, spec: DeltaKLSpec, env: Env, seen: Seen) -> Found:
        """Effect and interval at scale 1, and the test at lam*."""
        if env.scores_refusal:
            return _TEXT.measure(_as_text(spec, env), env, seen)
        plain = seen[0][0]
        data: dict[str, Any] = {"plain": plain}
        if env.null_refusal:
            return Found(data=data)
        at_star = seen[1][0]
        values = statistic(at_star, spec.divergence)
        data |= {"lam": lam_star(seen[0][1]), "at_star": at_star}
        return Found((NullTest("learned", float(values[0]), values[1:], "log"),), data)

    def judge(self, spec: DeltaKLSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims: applied, learned."""
        if env.scores_refusal:
            return _TEXT.judge(_as_text(spec, env), env, found, p).model_copy(update={"kind": self.kind})
        plain: Scores = found.data["plain"]
        effect = _effect(plain, spec, env, spec.divergence)
        applied = _applied(_effect(plain, spec, env, "kl"), env.floor)
        learned, evidence = self._learned(spec, env, found, p, applied)
        return result_of(
            spec,
            {"applied": applied, "learned": learned},
            headline="learned",
            score=_score(learned),
            evidence={
                **evidence,
                "divergence": spec.divergence,
                # Items are weighted equally, so the estimate itself counts a token an item.
                "effect_at_1": estimate_evidence(effect) | {"n_tokens": int(plain.tokens.sum())},
                "numeric_floor": env.floor,
                "items": extremes(plain.items, plain.item_sums(spec.divergence)[0], plain.tokens),
                **item_records({"applied": _measured(plain)}, seed=env.seed),
                "dropped": [],
            },
        )

    def _learned(
        self, spec: DeltaKLSpec, env: Env, found: Found, p: Mapping[str, float], applied: Question
    ) -> tuple[Question, dict[str, Any]]:
        if env.null_refusal:
            message = f"cannot be asked, since sway has no null for this kind of adapter: {env.null_refusal}"
            return Question(verdict=Verdict.SKIP, message=message), {}
        test = found.tests[0]
        evidence = null_evidence(test, p["learned"]) | {
            "minimum": {"learned": spec.min_ratio},
            "lam_star": found.data["lam"],
            "null_items": len(found.data["at_star"].items),
            "null_tokens": int(found.data["at_star"].tokens.sum()),
        }
        verdict, message = _verdict(evidence, spec, env, applied)
        claim = Question(
            verdict=verdict,
            effect=evidence["ratio"],
            unit="x the median null",
            p=p["learned"],
            null=env.null_name,
            message=message,
        )
        return claim, evidence


def _effect(plain: Scores, spec: DeltaKLSpec, env: Env, divergence: Reducer) -> Estimate:
    ones = np.ones(len(plain.items), dtype=np.int64)
    return gain(item_means(plain, divergence)[0], ones, clusters(plain.items), rng=env.rng(spec.name, "interval"))


def null_ask(spec: DeltaKLSpec, env: Env, views: tuple[View, ...]) -> Ask:
    """Return what nulls are asked: the part of the texts that each of them sees."""
    return _ask(spec, env, seen_by_nulls(_items(spec), env, tokens=spec.null_tokens), views, cut=CUT)


def _as_text(spec: DeltaKLSpec, env: Env) -> SampledTextSpec:
    """Return the question that is left where there is text alone: at most 32 of the texts are continued."""
    texts = list(dict.fromkeys(opening(item) for item in _items(spec)))
    order = env.rng(spec.name, "texts").permutation(len(texts))[:TEXTS]
    return SampledTextSpec(name=spec.name, prompts=tuple(texts[i] for i in sorted(order)))


def _measured(plain: Scores) -> Measured:
    ones = np.ones(len(plain.items), dtype=np.int64)
    return Measured(plain.items, item_means(plain, "kl")[0], ones, "nat/token", None, None)


def beyond_rounding(divergence: Reducer, floor: float) -> float:
    """Return the mean divergence up to which numerics explain it: ten times the floor N0, which is a KL in nats.

    A total variation is taken by what such a KL allows, sqrt(KL / 2) (Pinsker): it goes as the root of a small KL.
    """
    most = FLOOR_MULTIPLE * floor
    return float(np.sqrt(most / 2)) if divergence == "tv" else most


def item_means(scores: Scores, divergence: Reducer) -> npt.NDArray[np.float64]:
    """Return the mean divergence over the positions of each item, float64[V, n_items]."""
    means: npt.NDArray[np.float64] = scores.item_sums(divergence) / scores.tokens
    return means


def statistic(scores: Scores, divergence: Reducer) -> npt.NDArray[np.float64]:
    """Return the mean over positions, then items, then clusters, float64[V]."""
    means = item_means(scores, divergence)
    names = np.array(clusters(scores.items))
    by_cluster = np.stack([means[:, names == c].mean(axis=1) for c in dict.fromkeys(names)], axis=1)
    average: npt.NDArray[np.float64] = by_cluster.mean(axis=1)
    return average


def _items(spec: DeltaKLSpec) -> tuple[TextItem, ...]:
    return spec.prompts or tuple(TextItem("", p, str(i), f"prompt {i + 1}") for i, p in enumerate(GENERAL_PROMPTS))


def _ask(spec: DeltaKLSpec, env: Env, items: tuple[TextItem, ...], views: tuple[View, ...], *, cut: int | None) -> Ask:
    reducers: frozenset[Reducer] = frozenset({"kl", spec.divergence})
    return Ask(items, views, reducers, _position(spec), env.format, max_tokens=cut)


def _position(spec: DeltaKLSpec) -> Position:
    return "last" if spec.position == "last" else "completion"


def _applied(effect: Estimate, floor: float) -> Question:
    multiple = effect.estimate / floor if floor > 0 else np.inf
    ok = effect.estimate > FLOOR_MULTIPLE * floor
    # A floor of exact sums gives a number of twelve digits that says no more.
    times = f"{multiple:,.0f}" if multiple < 1e6 else "over a million"  # noqa: PLR2004
    return Question(
        verdict=Verdict.PASS if ok else Verdict.FAIL,
        effect=effect.estimate,
        unit="nat/token",
        interval=interval_of(effect),
        null=f"numeric floor (N0), must exceed {FLOOR_MULTIPLE:.0f} x {floor:.1e}",
        message=f"moves the next-token distribution by {effect.estimate:.3g} nat/token, {times} times the rounding"
        if ok
        else "the fine-tune gives the base's numbers: the adapter has no effect; check that it was trained and saved",
    )


def _verdict(evidence: Mapping[str, Any], spec: DeltaKLSpec, env: Env, applied: Question) -> tuple[Verdict, str]:
    p, m, ratio = evidence["p_adjusted"], evidence["n_draws"], evidence["ratio"]
    if applied.verdict is not Verdict.PASS:
        return Verdict.FAIL, "nothing was learned: the adapter has no measurable effect"
    if (needed := draws_needed(env.alpha, family=1)) > m:
        return Verdict.INCONCLUSIVE, too_few_draws(m, needed, env.alpha)
    if ratio is None:
        return (
            Verdict.INCONCLUSIVE,
            "what the nulls see of the texts shows no change at all; give other --data",
        )
    place = f"{standing(evidence)}, {ratio:.2f}x the median of random weights of its size"
    verdict, why = Verdict.PASS, f"a learned direction, not an arbitrary one ({place})"
    if evidence["p"] > env.alpha:
        verdict, why = Verdict.FAIL, f"does no more than random weights of its size ({place}); was it trained?"
    elif p > env.alpha:
        # By itself it is beyond them, so "no more than" would be untrue; over all questions it may be chance.
        verdict = Verdict.INCONCLUSIVE
        why = f"more than random weights of its size, but not surely ({place}); more `draws` would tell"
    elif ratio < spec.min_ratio:
        verdict = Verdict.INCONCLUSIVE
        why = f"beyond every random direction, but barely ({place}; minimum {spec.min_ratio}x)"
    return verdict, why


def _score(learned: Question) -> float | None:
    """Map the ratio to [0, 1]: 1x the null is 0, 4x and more is 1; not significant scores 0."""
    if learned.verdict is not Verdict.PASS or learned.effect is None:
        return None if learned.verdict in (Verdict.SKIP, Verdict.INCONCLUSIVE) else 0.0
    return float(np.clip(np.log(learned.effect) / np.log(4.0), 0.0, 1.0))
