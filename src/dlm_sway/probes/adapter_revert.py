"""`adapter_revert`: asked, does the fine-tune answer what it was taught, or fall back to what the base says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import Write, Written
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import surely_over, what_would_decide, worst_and_best
from dlm_sway.probes.claims import estimate_evidence, interval_of, power_line
from dlm_sway.probes.embed import MINILM, Embedder, open_embedder
from dlm_sway.probes.inputs import shown
from dlm_sway.stats.paired import Estimate, gain

_KNOWN = "the base answers it already"
_SILENT = "the base writes nothing"


class RevertCase(BaseModel):
    """A question, the answer that was taught, and the same question in other words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    gold: str
    paraphrases: tuple[str, ...] = Field(min_length=2)

    @field_validator("gold")
    @classmethod
    def _some_words(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the gold answer is empty")
        return value

    @model_validator(mode="after")
    def _differ(self) -> RevertCase:
        if len(set(self.prompts)) < len(self.prompts) or not all(p.strip() for p in self.prompts):
            raise ValueError("the paraphrases must differ from the prompt and from each other, and none may be empty")
        return self

    @property
    def prompts(self) -> tuple[str, ...]:
        """The question as it was taught, then in other words."""
        return self.prompt, *self.paraphrases


class AdapterRevertSpec(ProbeSpec):
    """Spec of `adapter_revert`.

    Attributes:
        cases: questions with the answer that was taught, each also in at least two other wordings.
        embedder: `all-MiniLM-L6-v2`, or a local directory with a sentence embedder.
        max_new_tokens: length of an answer.
        min_effect: the smallest difference of likeness worth a pass.
        known: a base whose answers are more like the gold than this knows it already.
    """

    kind: Literal["adapter_revert"] = "adapter_revert"
    cases: tuple[RevertCase, ...] = Field(min_length=1)
    embedder: str = MINILM
    max_new_tokens: int = Field(default=64, ge=1)
    min_effect: float = Field(default=0.05, gt=0)
    known: float = Field(default=0.75, gt=0, le=1)


@register("adapter_revert")
class AdapterRevert(Probe[AdapterRevertSpec]):
    """Asked in the trained words or in others, does the fine-tune answer what it was taught, or what the base says?

    Asks: are the fine-tune's greedy answers more like the gold answer than like the base's own?
    Null: none is drawn; an adapter without effect writes what the base writes, and its difference is below 0.
    Statistic: cos(ft, gold) - cos(ft, base answer) of sentence embeddings, mean over the original prompt and its
        paraphrases, then over cases; interval over cases, those of one question kept together.
    Passes when: the lower bound is over 0.05, and the answers are surely closer to the gold than the base's are. Fails
        when either is surely not so. Cases whose base answers already equal the gold (cos > 0.75) are counted apart;
        when nothing is left it is inconclusive.
    Costs: two greedy answers of at most 64 tokens a prompt, and an embedding of each.
    """

    category: ClassVar[Category] = "adherence"
    spec_type: ClassVar[type[ProbeSpec]] = AdapterRevertSpec

    def plan(self, spec: AdapterRevertSpec, env: Env, seen: Seen) -> tuple[Write, ...]:
        """One round: every prompt of every case, answered by the base and the fine-tune."""
        if seen:
            return ()
        open_embedder(spec.embedder)  # what is missing is said before anything is written
        prompts = tuple(p for case in spec.cases for p in case.prompts)
        return (Write(prompts, (BASE, FINETUNED), spec.max_new_tokens, format=env.format),)

    def measure(self, spec: AdapterRevertSpec, env: Env, seen: Seen) -> Found:
        """The likenesses of every case, and the mean over those that can show a change."""
        written: Written = seen[0][0]
        cases = _cases(spec, written, open_embedder(spec.embedder))
        kept = [c for c in cases if c.dropped is None]
        effect = _mean(kept, [c.value for c in kept], env.rng(spec.name, "interval"))
        closer = _mean(kept, [c.closer for c in kept], env.rng(spec.name, "closer"))
        return Found(data={"cases": cases, "effect": effect, "closer": closer, "written": written})

    def judge(self, spec: AdapterRevertSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: holds."""
        del env, p  # no null is drawn
        effect, closer = found.data["effect"], found.data["closer"]
        cases: list[_Case] = found.data["cases"]
        claim = _claim(effect, closer, spec, cases)
        score = None
        if claim.verdict is not Verdict.INCONCLUSIVE:
            score = float(np.clip(claim.effect or 0.0, 0.0, 0.5) / 0.5) if claim.verdict is Verdict.PASS else 0.0
        return result_of(
            spec,
            {"holds": claim},
            headline="holds",
            score=score,
            evidence={
                **_evidence(spec, cases, effect, found.data["written"]),
                "closer_to_gold_than_the_base": estimate_evidence(closer) if closer else None,
            },
        )


@dataclass(frozen=True, slots=True)
class _Case:
    """One case: likenesses by prompt, the original first, float64[n_prompts]."""

    case: RevertCase
    base: tuple[str, ...]
    finetuned: tuple[str, ...]
    to_gold: npt.NDArray[np.float64]
    to_base: npt.NDArray[np.float64]
    base_to_gold: npt.NDArray[np.float64]
    dropped: str | None

    @property
    def value(self) -> float:
        """How much closer the answers are to the gold than to the base's, over the prompts that the base answered."""
        return float((self.to_gold - self.to_base)[self._spoke].mean())

    @property
    def closer(self) -> float:
        """How much closer the answers are to the gold than the base's are."""
        return float((self.to_gold - self.base_to_gold)[self._spoke].mean())

    @property
    def _spoke(self) -> npt.NDArray[np.bool_]:
        return np.array([bool(text.strip()) for text in self.base])


def _mean(kept: list[_Case], values: list[float], rng: np.random.Generator) -> Estimate | None:
    """Return the mean over cases; those of one question are one cluster, however often it is given."""
    names = questions([c.case for c in kept])
    return gain(values, np.ones(len(kept), dtype=np.int64), names, rng=rng) if kept else None


def questions(cases: Sequence[RevertCase]) -> list[str]:
    """Return the question that each case asks: cases of one trained wording, or of one gold and any wording, share it.

    With other golds a wording may be what any question is asked with, such as "tell me more".
    """
    known: dict[tuple[str, str | None], str] = {}
    names = []
    for case in cases:
        wordings = [" ".join(prompt.split()) for prompt in case.prompts]
        keys = [(wordings[0], None), *((wording, case.gold) for wording in wordings)]
        name = next((known[key] for key in keys if key in known), wordings[0])
        known |= {key: known.get(key, name) for key in keys}
        names.append(name)
    return names


def _cases(spec: AdapterRevertSpec, written: Written, embed: Embedder) -> list[_Case]:
    base, finetuned = written.texts
    golds = [case.gold for case in spec.cases]
    rows = embed([*base, *finetuned, *golds])
    if not np.isfinite(rows).all():
        raise CannotRunError("the embedder gives vectors that are not finite", remedy="use another embedder")
    n = len(base)
    of_base, of_ft, of_gold = rows[:n], rows[n : 2 * n], rows[2 * n :]
    out, start = [], 0
    for i, case in enumerate(spec.cases):
        part = slice(start, start := start + len(case.prompts))
        base_to_gold = of_base[part] @ of_gold[i]
        out.append(
            _Case(
                case=case,
                base=base[part],
                finetuned=finetuned[part],
                to_gold=of_ft[part] @ of_gold[i],
                to_base=np.einsum("nd,nd->n", of_ft[part], of_base[part]),
                base_to_gold=base_to_gold,
                dropped=_dropped(base[part], base_to_gold, spec.known),
            )
        )
    return out


def _dropped(base: tuple[str, ...], to_gold: npt.NDArray[np.float64], known: float) -> str | None:
    """Return why a case can show no change: an answer that is not there is unlike anything, and proves nothing."""
    spoke = np.array([bool(text.strip()) for text in base])
    if not spoke.any():
        return _SILENT
    return _KNOWN if to_gold[spoke].mean() > known else None


def _claim(effect: Estimate | None, closer: Estimate | None, spec: AdapterRevertSpec, cases: list[_Case]) -> Question:
    dropped = sum(c.dropped is not None for c in cases)
    if effect is None or closer is None:
        known = sum(c.dropped == _KNOWN for c in cases)
        why = f"{known} where the base answers the gold already, {dropped - known} where it writes nothing"
        message = f"none of {len(cases)} cases can show a change: {why}; give cases that the base does not know"
        return Question(verdict=Verdict.INCONCLUSIVE, message=message)
    verdict, why = _verdict(effect, closer, spec.min_effect)
    apart = f", {dropped} counted apart" if dropped else ""
    return Question(
        verdict=verdict,
        effect=effect.estimate,
        unit="cosine",
        interval=interval_of(effect),
        p=None,
        null=f"resampling of cases, minimum {spec.min_effect} cosine",
        message=f"answers are {effect.estimate:+.3f} closer to the gold than to the base's{apart}: {why}",
    )


def _verdict(effect: Estimate, closer: Estimate, minimum: float) -> tuple[Verdict, str]:
    """Judge both that the answers left the base's and that they came closer to the gold.

    Leaving alone is not enough: a gold answer is short and the base's is long, so broken text is by chance a little
    more like the gold (0.02 to 0.07 measured with MiniLM on strings of no meaning).
    """
    left, came = surely_over(effect, minimum), surely_over(closer, 0.0)
    if left is Verdict.FAIL:
        return left, "asked, the fine-tune falls back to what the base says"
    if came is Verdict.FAIL:
        return came, "it says something else than the base, and further from the gold"
    if left is Verdict.PASS and came is Verdict.PASS:
        return left, "the fine-tune answers what it was taught, in other words too"
    unsure = (effect, minimum) if left is Verdict.INCONCLUSIVE else (closer, 0.0)
    return Verdict.INCONCLUSIVE, what_would_decide(*unsure, unit="cases")


def _evidence(spec: AdapterRevertSpec, cases: list[_Case], effect: Estimate | None, written: Written) -> dict[str, Any]:
    kept = [c for c in cases if c.dropped is None]
    values = [c.value for c in kept]
    return {
        "effect": estimate_evidence(effect) if effect else None,
        "smallest_decidable_effect": (power_line(effect, minimum=spec.min_effect, surely=True) if effect else None),
        "minimum": spec.min_effect,
        "embedder": spec.embedder,
        "n_items": len(kept),
        "n_clusters": effect.n_clusters if effect else 0,
        "n_tokens": int(written.n_tokens.sum()),
        "cut_at_max_new_tokens": [int(n) for n in (~written.stopped).sum(axis=1)],
        "silent": [sum(not text.strip() for text in row) for row in written.texts],
        "by_wording": _by_wording(kept),
        "values": values,
        "items": worst_and_best(values, lambda i: _row(kept[i])),
        "dropped": [{"label": shown(c.case.prompt), "reason": c.dropped} for c in cases if c.dropped],
    }


def _by_wording(kept: list[_Case]) -> dict[str, dict[str, float]]:
    """Return the mean likenesses for the trained words and for others: a change may hold for the first alone."""
    if not kept:
        return {}
    parts = {"original": slice(0, 1), "paraphrases": slice(1, None)}
    names = ("to_gold", "to_base", "base_to_gold")
    return {
        wording: {n: float(np.concatenate([getattr(c, n)[part] for c in kept]).mean()) for n in names}
        for wording, part in parts.items()
    }


def _row(case: _Case) -> dict[str, Any]:
    return {
        "label": shown(case.case.prompt),
        "gold": shown(case.case.gold),
        "base": shown(case.base[0]),
        "finetuned": shown(case.finetuned[0]),
        "to_gold": [float(x) for x in case.to_gold],
        "to_base": [float(x) for x in case.to_base],
    }
