"""`membership`: can one tell from the fine-tune's scores which documents it was trained on?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.form import features
from dlm_sway.probes.inputs import Items, require_unseen, shown, words_of
from dlm_sway.stats.auc import Auc, FormTest, auc, differ_in_any

FEWEST: Final = 30  # documents on each side: with fewer even an area of 0.5 is not told from 0.65 (simulated)
_APART: Final = 0.15  # distance of a feature's area from 1/2 from which the two sets do not look alike
_LOW_RATE: Final = 0.05
_FORM: Final = (
    "length",
    "log-prob under the base",
    "word length",
    "sentence length",
    "names",
    "digits",
    "address",
    "symbols",
    "letters beyond ASCII",
)
F64 = npt.NDArray[np.float64]


class MembershipSpec(ProbeSpec):
    """Spec of `membership`.

    Attributes:
        items: documents that the fine-tune was trained on.
        held_out: documents of the same source that it was not trained on.
        intent: `inform` never judges; `generalize` passes when documents cannot be told apart, `memorize` when they
            can.
        limit: the area under the ROC curve up to which documents count as not told apart.
        max_documents: texts of each kind that are read; of more, some are drawn. Those of one `cluster` are one
            document.
        max_tokens: of a document, its first ones.
    """

    kind: Literal["membership"] = "membership"
    items: Items = Field(min_length=1)
    held_out: Items = Field(min_length=1)
    intent: Literal["inform", "generalize", "memorize"] = "inform"
    limit: float = Field(default=0.65, gt=0.5, lt=1)
    max_documents: int = Field(default=100, ge=2)
    max_tokens: int = Field(default=128, ge=8)

    @model_validator(mode="after")
    def _disjoint(self) -> MembershipSpec:
        require_unseen(self.items, self.held_out)
        return self


@register("membership")
class Membership(Probe[MembershipSpec]):
    """Can one tell from the fine-tune's scores which documents it was trained on?

    Asks: do documents of the training data gain more than documents of the same source that it has not seen?
    Null: permutation of trained and held out over documents (N4). No adapter is drawn.
    Statistic: gain per token of each document, l_ft - l_base, so that easy documents do not stand out; area under the
        ROC curve. Also the share of trained documents found where 5 % of the others are taken for trained.
    Passes when: never judged by itself. With intent `generalize`: the one-sided 95 % bound of the area is under 0.65,
        with 30 documents on each side; fails when the whole interval is over it and p <= alpha. `memorize` turns it
        round, and asks for 30 documents likewise. Warns when the two sets differ in form, length or log-prob under the
        base: then the area may tell sources apart, and a failure is left open.
    Costs: at most 100 documents of 128 tokens on each side, for base and fine-tune.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = MembershipSpec

    def plan(self, spec: MembershipSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: documents of both kinds."""
        if seen:
            return ()
        sets = (_drawn(spec, env, "items"), _drawn(spec, env, "held_out"))
        return tuple(
            Ask(items, (FINETUNED,), frozenset({"gain"}), format=env.format, max_tokens=spec.max_tokens)
            for items in sets
        )

    def measure(self, spec: MembershipSpec, env: Env, seen: Seen) -> Found:
        """The area, and whether the two sets look alike."""
        members, others = (_documents(scores) for scores in seen[0])
        found = auc(members.gain, others.gain, confidence=_confidence(env.alpha), rng=env.rng(spec.name, "labels"))
        form = differ_in_any(members.form, others.form, rng=env.rng(spec.name, "form"))
        return Found(data={"members": members, "others": others, "auc": found, "form": form})

    def judge(self, spec: MembershipSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: told_apart; and a warning where the two sets do not look alike."""
        del p  # labels are permuted, not adapters
        area: Auc = found.data["auc"]
        form: FormTest = found.data["form"]
        unlike = _unlike(form, env.alpha)
        verdict, why = _verdict(spec, env, area, unlike)
        claims = {"told_apart": _claim(area, verdict, why)}
        if unlike:
            claims["same_source"] = _warning(form, unlike)
        evidence = _evidence(spec, env, found.data) | {"auc": area.estimate, "p": area.p, "unlike": unlike}
        score = {Verdict.PASS: 1.0, Verdict.FAIL: 0.0}.get(verdict)
        return result_of(spec, claims, headline="told_apart", score=score, evidence=evidence)


def _confidence(alpha: float) -> float:
    """Return that of the interval: both one-sided questions are asked at alpha, but at 5 % where that is more.

    `sway compare` reads an interval without its items as one of 90 %, so a narrower one would tell equals apart.
    """
    return max(0.9, 1 - 2 * alpha)


def _drawn(spec: MembershipSpec, env: Env, name: Literal["items", "held_out"]) -> tuple[TextItem, ...]:
    unique = list({words_of(i): i for i in getattr(spec, name)}.values())
    if len(unique) <= spec.max_documents:
        return tuple(unique)
    chosen = env.rng(spec.name, name).permutation(len(unique))[: spec.max_documents]
    return tuple(unique[i] for i in np.sort(chosen))


@dataclass(frozen=True, slots=True)
class _Documents:
    """Documents of one kind.

    Attributes:
        names: the label of its text, or of several the name of their cluster, n.
        texts: the text of each.
        gain: float64[n], gain per token.
        tokens: int64[n], tokens scored.
        form: float64[n, K], features of form, in the order of `_FORM`.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    gain: F64
    tokens: npt.NDArray[np.int64]
    form: F64


def _documents(scores: Scores) -> _Documents:
    """Return items summed by cluster: a document is what varies together."""
    index: dict[str, int] = {}
    member = np.array([index.setdefault(item.cluster, len(index)) for item in scores.items])
    base = np.add.reduceat(scores.base_logprob, scores.offsets[:-1])
    total, log_prob, tokens = (
        np.bincount(member, weights=x) for x in (scores.item_sums("gain")[0], base, scores.tokens)
    )
    texts = [
        "\n".join(i.completion for i, own in zip(scores.items, member, strict=True) if own == d) for d in index.values()
    ]
    looks = np.stack([features(text) for text in texts])
    form = np.column_stack([np.log(tokens), log_prob / tokens, looks])
    alone = {
        item.cluster: item.label for item, own in zip(scores.items, member, strict=True) if sum(member == own) == 1
    }
    names = tuple(alone.get(cluster, cluster) for cluster in index)
    return _Documents(names, tuple(texts), total / tokens, tokens.astype(np.int64), form)


def _unlike(form: FormTest, alpha: float) -> list[str]:
    """Return the features in which the two sets surely and clearly differ, the strongest first."""
    distance = np.abs(form.areas - 0.5)
    if form.p > alpha:
        return []
    return [_FORM[i] for i in np.argsort(-distance, kind="stable") if distance[i] >= _APART]


def _verdict(spec: MembershipSpec, env: Env, area: Auc, unlike: list[str]) -> tuple[Verdict, str]:
    few = min(area.n_first, area.n_second) < FEWEST
    if spec.intent == "inform":
        return Verdict.SKIP, "for information" + (f"; {FEWEST} documents on each side would tell more" if few else "")
    wanted = spec.intent == "memorize"
    if area.low > spec.limit and area.p <= env.alpha:
        if unlike:
            return Verdict.INCONCLUSIVE, "the two sets do not look alike; hold out documents of the same source"
        if wanted and few:
            # Whether the two sets look alike cannot be told of so few, so their sources may be what is told apart.
            why = f"over {spec.limit}, by too few to tell training from source; give {FEWEST} documents on each side"
            return Verdict.INCONCLUSIVE, why
        return (Verdict.PASS if wanted else Verdict.FAIL), f"surely over {spec.limit}: trained documents stand out"
    if area.high < spec.limit and not few:
        return (Verdict.FAIL if wanted else Verdict.PASS), f"surely under {spec.limit}: they do not stand out"
    return (
        Verdict.INCONCLUSIVE,
        f"neither under nor over {spec.limit}; about {_needed(spec, area)} of each would decide",
    )


def _needed(spec: MembershipSpec, area: Auc) -> int:
    n = min(area.n_first, area.n_second)
    reach, gap = (area.high - area.low) / 2, max(abs(area.estimate - spec.limit), 0.01)
    return max(FEWEST, n + 1, int(np.ceil(n * (reach / gap) ** 2)))


def _claim(area: Auc, verdict: Verdict, why: str) -> Question:
    return Question(
        verdict=verdict,
        effect=area.estimate,
        unit="area under the ROC curve",
        interval=(area.low, area.high),
        p=area.p,
        null="permutation over documents (N4)",
        message=f"area {area.estimate:.2f} over {area.n_first} trained and {area.n_second} held-out documents, "
        f"p {area.p:.2g}: {why}",
    )


def _warning(form: FormTest, unlike: list[str]) -> Question:
    first = _FORM.index(unlike[0])
    return Question(
        verdict=Verdict.WARN,
        effect=float(form.areas[first]),
        unit="area under the ROC curve",
        p=form.p,
        null="permutation over documents (N4), maxT over features",
        message=f"trained and held-out documents differ in {', '.join(unlike[:3])}: the area may tell sources apart",
    )


def _evidence(spec: MembershipSpec, env: Env, data: Mapping[str, Any]) -> dict[str, Any]:
    members, others, form = data["members"], data["others"], data["form"]
    both = [(d, i, kind) for d, kind in ((members, "trained"), (others, "held out")) for i in range(len(d.names))]

    def row(k: int) -> dict[str, Any]:
        d, i, kind = both[k]
        return {"label": d.names[i], "kind": kind, "tokens": int(d.tokens[i]), "text": shown(d.texts[i][:1000])}

    gains = np.concatenate([members.gain, others.gain])
    given = len(spec.items) + len(spec.held_out)
    read = len(_drawn(spec, env, "items")) + len(_drawn(spec, env, "held_out"))
    return {
        "intent": spec.intent,
        "limit": spec.limit,
        "mean_gain": {"trained": float(members.gain.mean()), "held_out": float(others.gain.mean())},
        "found_at_5_percent": _found_at(members.gain, others.gain, _LOW_RATE),
        "form": [{"feature": name, "area": float(x)} for name, x in zip(_FORM, form.areas, strict=True)],
        "p_same_form": form.p,
        "curves": [_roc(members.gain, others.gain)],
        "items": worst_and_best(gains, row),
        "counts": {
            "n_items": len(both),
            "n_tokens": int(members.tokens.sum() + others.tokens.sum()),
            "n_clusters": len(both),
        },
        "dropped": [{"label": f"{given - read} items", "why": "duplicates, or beyond max_documents"}] * (given > read),
        "smallest_decidable_effect": float(data["auc"].high - data["auc"].estimate),
    }


def _found_at(members: F64, others: F64, rate: float) -> float:
    """Return the share of members above the score that a share `rate` of the others exceeds at most."""
    edge = np.sort(others)[::-1][int(rate * len(others))]
    return float((members > edge).mean())


def _roc(members: F64, others: F64) -> dict[str, Any]:
    edges = np.quantile(others, np.linspace(1, 0, 21), method="lower")
    return {
        "name": "membership",
        "x": [float((others > e).mean()) for e in edges],
        "x_label": "held-out documents taken for trained",
        "y": [float((members > e).mean()) for e in edges],
        "low": None,
        "high": None,
        "unit": "of trained documents found",
        "minimum": None,
    }
