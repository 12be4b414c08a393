"""`cluster_kl`: does the fine-tune's effect differ by topic?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.delta_kl import beyond_rounding, item_means
from dlm_sway.probes.distinct import distinct
from dlm_sway.probes.embed import MINILM, open_embedder
from dlm_sway.probes.inputs import Items, shown
from dlm_sway.probes.topics import topics
from dlm_sway.stats.icc import N_PERMUTATIONS, GroupTest, group_test, values_needed

FEWEST: Final = 30
"""Prompts under which a share of variance between topics is not worth a verdict: of 5 topics they find twice the
declared minimum 4 times in 5."""
_SENSIBLE: Final = 10_000
_NEGLIGIBLE: Final = 1e-6  # of the mean effect: smaller ones are no smaller in their logarithm


class ClusterKLSpec(ProbeSpec):
    """Spec of `cluster_kl`.

    Attributes:
        prompts: texts, at least 30; the built-in 32 when none are given.
        labels: the topic of each prompt; without them prompts are grouped by their sentence vectors.
        k: topics to look for where there are no labels.
        embedder: `all-MiniLM-L6-v2`, or a local directory with a sentence embedder; only used without labels.
        divergence: between base and fine-tune; `kl` is KL(base || fine-tune).
        intent: `specific` asserts that the effect differs by topic; without it the number is shown and not judged.
        min_icc: the smallest share of the variance of the log effect between topics worth a pass.
    """

    kind: Literal["cluster_kl"] = "cluster_kl"
    prompts: Items = ()
    labels: tuple[str, ...] = ()
    k: int = Field(default=5, ge=2)
    embedder: str = MINILM
    divergence: Literal["kl", "js", "tv"] = "kl"
    intent: Literal["none", "specific"] = "none"
    min_icc: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _a_label_each(self) -> ClusterKLSpec:
        if self.labels and len(self.labels) != len(self.prompts):
            raise ValueError(f"{len(self.prompts)} prompts and {len(self.labels)} labels: give one a prompt")
        return self


@register("cluster_kl")
class ClusterKL(Probe[ClusterKLSpec]):
    """Does the fine-tune's effect differ by topic?

    Asks: how much of the spread of its effect over prompts lies between topics?
    Null: labels (N4): the topics of the prompts change places at random, 9,999 times; no forward pass is needed.
    Statistic: ICC(1) of the log of each prompt's mean divergence to the base, between topics: 0 by chance, negative
        where topics are more alike than chance; its mean and 95 % quantile under the null are shown. Effects differ by
        factors, so few prompts with a large one would hide what the others say without the log.
    Passes when: with intent `specific`, p <= alpha and ICC >= 0.2; fails when the whole interval lies under 0.2. 30
        prompts of 5 topics find an ICC of 0.4 4 times in 5; for half of that, 0.2, the answer names the prompts that
        would decide. Without an intent it claims nothing and only informs.
    Costs: one pass of all prompts for base and fine-tune, and without labels an embedding of each.
    """

    category: ClassVar[Category] = "adherence"
    spec_type: ClassVar[type[ProbeSpec]] = ClusterKLSpec

    def plan(self, spec: ClusterKLSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: all prompts under the fine-tune."""
        if seen:
            return ()
        if not spec.labels:
            open_embedder(spec.embedder)  # what is missing is said before anything is scored
        items = tuple(item for item, _ in _given(spec)[0])
        return (Ask(items, (FINETUNED,), frozenset({spec.divergence}), format=env.format),)

    def measure(self, spec: ClusterKLSpec, env: Env, seen: Seen) -> Found:
        """The effect on each prompt, its topic, and the test between topics."""
        scores: Scores = seen[0][0]
        pairs, dropped = _given(spec)
        effects = np.maximum(item_means(scores, spec.divergence)[0], 0.0)
        labels = [label for _, label in pairs] if spec.labels else _found_topics(scores.items, spec, env)
        # Rounding alone makes effects up to the floor, and its logarithm would be no effect's.
        rounding = beyond_rounding(spec.divergence, env.floor)
        smallest = max(rounding, _NEGLIGIBLE * float(effects.mean()), np.finfo(np.float64).tiny)
        units = _units(scores.items, labels, np.maximum(effects, smallest))
        values = np.log([u[1] for u in units])
        names = [u[0] for u in units]
        test = None
        if 1 < len(set(names)) < len(names):
            test = group_test(values, names, rng=env.rng(spec.name, "labels"))
        data = {"scores": scores, "effects": effects, "labels": labels, "units": units, "test": test}
        return Found(data={**data, "dropped": dropped})

    def judge(self, spec: ClusterKLSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: specific."""
        del p  # the null of labels needs no draws, so it is no row of the suite's family
        test: GroupTest | None = found.data["test"]
        claim = _claim(test, found, spec, env)
        score = None
        if claim.verdict in (Verdict.PASS, Verdict.FAIL):
            score = min(1.0, 0.5 + (test.icc or 0.0)) if test and claim.verdict is Verdict.PASS else 0.0
        return result_of(
            spec, {"specific": claim}, headline="specific", score=score, evidence=_evidence(found, spec, test)
        )


def _given(spec: ClusterKLSpec) -> tuple[list[tuple[TextItem, str]], list[dict[str, str]]]:
    items = spec.prompts or tuple(TextItem("", p, str(i), f"prompt {i + 1}") for i, p in enumerate(GENERAL_PROMPTS))
    labels = spec.labels or ("",) * len(items)
    return distinct(zip(items, labels, strict=True), lambda pair: _text(pair[0]))


def _text(item: TextItem) -> str:
    turns = " ".join(str(turn.get("content") or "") for turn in item.messages)
    return " ".join(part for part in (item.prompt, turns, item.completion) if part)


def _found_topics(items: tuple[TextItem, ...], spec: ClusterKLSpec, env: Env) -> list[str]:
    vectors = open_embedder(spec.embedder)([_text(item) for item in items])
    return topics(vectors, spec.k, rng=env.rng(spec.name, "topics"))


def _units(items: tuple[TextItem, ...], labels: list[str], effects: npt.NDArray[np.float64]) -> list[tuple[str, float]]:
    """Return (topic, mean effect) of each cluster in each topic: prompts of one cluster do not vary on their own."""
    rows: dict[tuple[str, str], list[float]] = {}
    for item, label, effect in zip(items, labels, effects, strict=True):
        rows.setdefault((item.cluster, label), []).append(float(effect))
    return [(label, float(np.mean(values))) for (_, label), values in rows.items()]


def _claim(test: GroupTest | None, found: Found, spec: ClusterKLSpec, env: Env) -> Question:
    null = f"labels (N4), {N_PERMUTATIONS:,} permutations"
    units, mean = found.data["units"], float(found.data["effects"].mean())
    rounding = beyond_rounding(spec.divergence, env.floor)
    if test is not None and mean <= rounding:
        message = f"there is no effect to differ, {mean:.2g} where numerics explain {rounding:.2g}"
        return Question(verdict=Verdict.INCONCLUSIVE, null=null, message=message)
    if test is None or test.icc is None:
        n, k = len(units), len({name for name, _ in units})
        why = f"{n} prompts of {k} topics cannot be compared" if test is None else "the effect is the same on all"
        message = f"{why}; give at least {FEWEST} prompts, several of each of two or more topics"
        return Question(verdict=Verdict.INCONCLUSIVE, null=null, message=message)
    verdict, why = _verdict(test, spec, env)
    return Question(
        verdict=verdict,
        effect=test.icc,
        unit="of the variance of the log effect",
        interval=None if test.low is None or test.high is None else (test.low, test.high),
        p=test.p,
        null=null,
        message=f"{test.icc:+.2f} of the spread lies between {test.n_groups} topics (chance: {test.chance_mean:+.2f}, "
        f"seldom over {test.chance_high:.2f}; p {test.p:.2g}): {why}",
    )


def _verdict(test: GroupTest, spec: ClusterKLSpec, env: Env) -> tuple[Verdict, str]:
    if spec.intent == "none":
        return Verdict.SKIP, "not judged; set `intent: specific` to assert that it differs by topic"
    if test.n < FEWEST:
        return Verdict.INCONCLUSIVE, f"{test.n} prompts cannot decide; give at least {FEWEST}"
    if test.p <= env.alpha and (test.icc or 0.0) >= spec.min_icc:
        return Verdict.PASS, "it differs by topic"
    if test.high is not None and test.high < spec.min_icc:
        return Verdict.FAIL, f"it does not differ by topic, not by {spec.min_icc:g}"
    return Verdict.INCONCLUSIVE, _more(test, spec, env)


def _more(test: GroupTest, spec: ClusterKLSpec, env: Env) -> str:
    needed = values_needed(test.icc or 0.0, n_groups=test.n_groups, minimum=spec.min_icc, alpha=env.alpha)
    if needed > _SENSIBLE:
        return f"{test.n} prompts do not decide: the share lies at the minimum of {spec.min_icc:g}"
    return f"{test.n} prompts do not decide; about {max(needed, test.n + 1)} would"


def _evidence(found: Found, spec: ClusterKLSpec, test: GroupTest | None) -> dict[str, Any]:
    scores: Scores = found.data["scores"]
    effects, labels = found.data["effects"], found.data["labels"]
    kinds = np.array(labels)
    by_topic = [
        {"label": shown(name, limit=60), "value": float(effects[kinds == name].mean()), "n": int((kinds == name).sum())}
        for name in dict.fromkeys(labels)
    ]

    def row(i: int) -> dict[str, Any]:
        item = scores.items[i]
        return {"label": item.label, "topic": shown(labels[i], limit=60), "text": shown(_text(item))}

    return {
        "divergence": spec.divergence,
        "topics_from": "labels" if spec.labels else spec.embedder,
        "chance": None if test is None else {"mean": test.chance_mean, "high": test.chance_high},
        # Under the null 19 in 20 stay below it, so no smaller share could have been told from chance.
        "smallest_decidable_effect": None if test is None else test.chance_high,
        "per_item": by_topic[:200],
        "counts": {
            "n_items": len(effects),
            "n_tokens": int(scores.tokens.sum()),
            "n_clusters": len(found.data["units"]),
        },
        "items": worst_and_best(effects, row),
        "dropped": found.data["dropped"],
    }
