"""`preference_flip`: does the fine-tune prefer the answers that were chosen over those that were rejected?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.claims import (
    ROWS,
    Measured,
    estimate_evidence,
    interval_of,
    item_records,
    null_evidence,
    power_line,
)
from dlm_sway.probes.directional import NO_NULL, directional
from dlm_sway.probes.inputs import shown, subset
from dlm_sway.probes.pairing import answer_after
from dlm_sway.stats.paired import Estimate, gain, mcnemar

CUT = 24  # tokens of an answer that nulls read: more triples tell more than longer answers
_LISTED = 50  # flips of one kind that the evidence names

F64: TypeAlias = npt.NDArray[np.float64]
Normalise: TypeAlias = Literal["none", "length"]


class Triple(BaseModel):
    """A prompt, the answer that was chosen and the one that was rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = ""
    chosen: str
    rejected: str
    cluster: str | None = None
    label: str | None = None

    @property
    def group(self) -> str:
        """What varies together: triples of one cluster or, without one, of one prompt."""
        words = " ".join(self.prompt.split()) or f"{self.chosen}\n{self.rejected}"
        return words if self.cluster is None else self.cluster


class PreferenceFlipSpec(ProbeSpec):
    """Spec of `preference_flip`.

    Attributes:
        triples: mappings with `prompt`, `chosen` and `rejected`, and optionally `cluster` and `label`.
        normalise: `none` compares whole answers, nat; `length` compares them per token, nat/token.
        min_change: the smallest mean change of the margin worth a pass, in that unit.
        null_tokens: about how many tokens of the answers a null sees.
    """

    kind: Literal["preference_flip"] = "preference_flip"
    triples: tuple[Triple, ...] = Field(min_length=1)
    normalise: Normalise = "none"
    min_change: float = Field(default=0.2, gt=0)
    null_tokens: int = Field(default=512, ge=16)


@register("preference_flip")
class PreferenceFlip(Probe[PreferenceFlipSpec]):
    """Did the fine-tune come to prefer the chosen answers over the rejected ones?

    Asks: did the margin log p(chosen) - log p(rejected) grow, over all triples and not only those the base had wrong?
    Null: rotation (N1) at scale 1 for the direction; resampling of triples, by prompt, for the interval.
    Statistic: change of the margin, fine-tune minus base, mean over triples; against the nulls, that mean over its
        standard error plus the minimum; flips of its sign both ways with the exact McNemar test over prompts, each
        counted once, the way most of its triples turned. `normalise: length` takes each log-prob per token: whole
        answers favour whichever side is longer when a fine-tune makes all text more probable.
    Passes when: the mean change is >= 0.2 nat with a lower bound > 0 and exceeds the nulls (p <= alpha after maxT), and
        prompts that turned to the rejected answer do not surely outnumber those that turned to the chosen one. 50
        prompts find a change of twice the minimum 2 times in 3 where changes spread by 1 nat, 100 do 9 times in 10.
    Costs: one pass of all answers for base and fine-tune (a prompt is read once for both), and (n_draws + 2) views of
        about 500 tokens.
    """

    category: ClassVar[Category] = "attribution"
    spec_type: ClassVar[type[ProbeSpec]] = PreferenceFlipSpec

    def plan(self, spec: PreferenceFlipSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: all answers under the fine-tune, some of them under the nulls."""
        kept, _ = usable(spec)
        if seen or not kept:
            return ()
        asks = [_ask(kept, env, (FINETUNED,))]
        if not env.null_refusal:
            asks.append(_ask(_some(spec, kept, env), env, env.adapter_and_nulls(), max_tokens=CUT))
        return tuple(asks)

    def measure(self, spec: PreferenceFlipSpec, env: Env, seen: Seen) -> Found:
        """Margins under the base and the fine-tune, the mean change, and its null test."""
        if not seen:
            return Found()
        scores, *under_nulls = seen[0]
        margins = _margins(scores, spec.normalise)
        kept, _ = usable(spec)
        ones = np.ones(len(kept), dtype=np.int64)
        groups = [triple.group for triple in kept]
        effect = gain(margins.change[0], ones, groups, rng=env.rng(spec.name, "interval"))
        tests = tuple(
            NullTest("prefers", float(stood[0]), stood[1:], "linear")
            for stood in (moderated(_margins(s, spec.normalise).change, spec.min_change) for s in under_nulls)
        )
        return Found(tests, {"margins": margins, "effect": effect, "scores": scores})

    def judge(self, spec: PreferenceFlipSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: prefers."""
        kept, dropped = usable(spec)
        if not kept:
            claim = Question(verdict=Verdict.INCONCLUSIVE, message=f"no triple can be compared: {dropped[0]['why']}")
            return result_of(spec, {"prefers": claim}, headline="prefers", score=None, evidence={"dropped": dropped})
        effect: Estimate = found.data["effect"]
        null = null_evidence(found.tests[0], p["prefers"]) if found.tests else None
        flips = _Flips.of(found.data["margins"], [triple.group for triple in kept])
        claim = _claim(spec, env, effect, null, flips)
        evidence = _evidence(spec, kept, found, flips)
        evidence |= item_records({"prefers": _measured(spec, kept, found)}, seed=env.seed)
        return result_of(
            spec,
            {"prefers": claim},
            headline="prefers",
            score=_score(claim),
            evidence={**evidence, "dropped": dropped, **(null or {})},
        )


def moderated(change: F64, minimum: float) -> F64:
    """Return mean / (standard error + minimum) of each view's changes over triples, f64[V, n] to f64[V].

    The fudge of Tusher, Tibshirani and Chu (2001). A random direction of a strong adapter's size scatters the margins
    of single triples by many nats, so its mean is large by chance: the standard error tells that. Where changes hardly
    scatter, a plain t would make a tiny mean large: the minimum keeps it small.
    """
    n = change.shape[1]
    se = change.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(len(change))
    out: F64 = change.mean(axis=1) / (se + minimum)
    return out


@dataclass(frozen=True, slots=True)
class _Margins:
    """Margins of triples: `base` float64[n], and how each view changes them, float64[V, n]; nat or nat per token."""

    base: F64
    change: F64

    @property
    def finetuned(self) -> F64:
        after: F64 = self.base + self.change[0]
        return after


@dataclass(frozen=True, slots=True)
class _Flips:
    """Which triples changed sides, and which way their groups turned.

    Attributes:
        gained: int64, triples that turned to the chosen answer.
        lost: int64, triples that turned away from it.
        to_chosen: groups of which more triples gained than lost.
        to_rejected: groups of which more lost than gained.
        p: exact and two-sided, that groups turn both ways alike.
    """

    gained: npt.NDArray[np.int64]
    lost: npt.NDArray[np.int64]
    to_chosen: int
    to_rejected: int
    p: float

    @property
    def singly(self) -> bool:
        """Whether groups and triples are the same counts."""
        return (self.to_chosen, self.to_rejected) == (len(self.gained), len(self.lost))

    @classmethod
    def of(cls, margins: _Margins, groups: Sequence[str]) -> _Flips:
        before, after = margins.base > 0, margins.finetuned > 0
        gained, lost = np.flatnonzero(~before & after), np.flatnonzero(before & ~after)
        net = Counter(groups[i] for i in gained.tolist())
        net.subtract(groups[i] for i in lost.tolist())
        # Triples of one group turn together, so a group is one that turned, whichever way most of it did.
        to_chosen, to_rejected = sum(n > 0 for n in net.values()), sum(n < 0 for n in net.values())
        return cls(gained, lost, to_chosen, to_rejected, mcnemar(to_rejected, to_chosen))


def usable(spec: PreferenceFlipSpec) -> tuple[tuple[Triple, ...], list[dict[str, str]]]:
    """Return the triples that can show a preference, and the others with the reason."""
    kept: dict[tuple[str, str, str], Triple] = {}
    dropped: list[dict[str, str]] = []
    for i, triple in enumerate(spec.triples):
        key = (triple.prompt, triple.chosen, triple.rejected)
        why = None
        if not (triple.chosen.strip() and triple.rejected.strip()):
            why = "an answer is empty"
        elif triple.chosen.strip() == triple.rejected.strip():
            why = "both answers are the same"
        elif key in kept:
            why = "the same triple again"
        if why is None:
            kept[key] = triple
        else:
            dropped.append({"label": shown(_label(triple, i)), "why": why})
    return tuple(kept.values()), dropped[:ROWS]


def _ask(triples: tuple[Triple, ...], env: Env, views: tuple[Any, ...], *, max_tokens: int | None = None) -> Ask:
    items = [
        TextItem(t.prompt, answer_after(t.prompt, answer, env), t.group, f"triple {i} ({side})")
        for i, t in enumerate(triples)
        for side, answer in (("chosen", t.chosen), ("rejected", t.rejected))
    ]
    return Ask(tuple(items), views, frozenset({"gain"}), format=env.format, max_tokens=max_tokens)


def _some(spec: PreferenceFlipSpec, kept: tuple[Triple, ...], env: Env) -> tuple[Triple, ...]:
    items = [TextItem(t.prompt, f"{t.chosen} {t.rejected}", t.group, str(i)) for i, t in enumerate(kept)]
    rng = env.rng(spec.name, "nulls")
    return tuple(kept[int(item.label)] for item in subset(items, tokens=spec.null_tokens, cut=2 * CUT, rng=rng))


def _margins(scores: Scores, normalise: Normalise) -> _Margins:
    """Return the margins; items come in pairs, the chosen answer first."""
    by = scores.tokens if normalise == "length" else np.ones_like(scores.tokens)
    base = np.add.reduceat(scores.base_logprob, scores.offsets[:-1]) / by
    gains = scores.item_sums("gain") / by  # [V, 2n]
    return _Margins(base[::2] - base[1::2], gains[:, ::2] - gains[:, 1::2])


def _claim(
    spec: PreferenceFlipSpec, env: Env, effect: Estimate, null: Mapping[str, Any] | None, flips: _Flips
) -> Question:
    unit = _unit(spec)
    verdict, why = directional(effect, spec.min_change, null, env, units="prompts")
    # The p is over groups, so the direction is too: many triples of one prompt turn as one.
    away = flips.to_rejected > flips.to_chosen and flips.p <= env.alpha
    if away and verdict is not Verdict.FAIL:
        verdict, why = Verdict.FAIL, f"it turned to the rejected answer more often than from it (p {flips.p:.2g})"
    turned = f"{len(flips.gained)} turned to the chosen answer, {len(flips.lost)} away from it"
    if not flips.singly:
        turned += f" (prompts: {flips.to_chosen} and {flips.to_rejected})"
    return Question(
        verdict=verdict,
        effect=effect.estimate,
        unit=unit,
        interval=interval_of(effect),
        p=effect.p if null is None else null["p_adjusted"],
        null=env.null_name if null else NO_NULL,
        message=f"margin {effect.estimate:+.3f} {unit} over {effect.n_items} triples, {turned}"
        f": {why or 'it learned the preference'}",
    )


def _score(claim: Question) -> float | None:
    """Map the claim to [0, 1]: full marks where the margin grew by 1 nat (or nat/token)."""
    if claim.verdict is Verdict.INCONCLUSIVE:
        return None
    return min(1.0, 0.5 + (claim.effect or 0.0) / 2) if claim.verdict is Verdict.PASS else 0.0


def _measured(spec: PreferenceFlipSpec, kept: tuple[Triple, ...], found: Found) -> Measured:
    margins: _Margins = found.data["margins"]
    after = margins.finetuned
    both = "{}\n{}".format
    return Measured(
        items=[TextItem(t.prompt, both(t.chosen, t.rejected), t.group, _label(t, i)) for i, t in enumerate(kept)],
        total=margins.change[0],
        weight=np.ones(len(kept), dtype=np.int64),
        unit=_unit(spec),
        better="higher",
        minimum=spec.min_change,
        row=lambda i: {
            "chosen": shown(kept[i].chosen, limit=80),
            "rejected": shown(kept[i].rejected, limit=80),
            "base": float(margins.base[i]),
            "finetuned": float(after[i]),
        },
    )


def _label(triple: Triple, i: int) -> str:
    return triple.label or triple.prompt or str(i)


def _unit(spec: PreferenceFlipSpec) -> str:
    return "nat" if spec.normalise == "none" else "nat/token"


def _evidence(spec: PreferenceFlipSpec, kept: tuple[Triple, ...], found: Found, flips: _Flips) -> dict[str, Any]:
    margins: _Margins = found.data["margins"]
    scores: Scores = found.data["scores"]
    effect: Estimate = found.data["effect"]
    change, after = margins.change[0], margins.finetuned

    def row(i: int) -> dict[str, Any]:
        t = kept[i]
        texts = {"chosen": shown(t.chosen), "rejected": shown(t.rejected)}
        return {"label": shown(_label(t, i)), "value": float(change[i]), **texts}

    rows = [row(i) | {"base": float(margins.base[i]), "finetuned": float(after[i])} for i in range(len(kept))]
    return {
        "change": estimate_evidence(effect),
        "minimum": spec.min_change,
        "normalise": spec.normalise,
        "smallest_decidable_effect": power_line(effect, minimum=spec.min_change),
        "flips": {
            "to_chosen": [rows[i] for i in flips.gained[:_LISTED]],
            "to_rejected": [rows[i] for i in flips.lost[:_LISTED]],
            "n_to_chosen": len(flips.gained),
            "n_to_rejected": len(flips.lost),
            "prompts_to_chosen": flips.to_chosen,
            "prompts_to_rejected": flips.to_rejected,
            "p_mcnemar": flips.p,
        },
        "preferred_by_base": float(np.mean(margins.base > 0)),
        "preferred_by_finetune": float(np.mean(after > 0)),
        "longer_chosen": float(np.mean(scores.tokens[::2] > scores.tokens[1::2])),
        "counts": {
            "n_items": effect.n_items,
            "n_clusters": effect.n_clusters,
            "n_tokens": int(scores.tokens.sum()),
        },
        "items": worst_and_best(change, row),
    }
