"""`sampled_text`: do the two models write alike? All that can be asked where there is text and no log-prob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from dlm_sway.backends.base import TextCodec
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import TextItem, Write, Written
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import FEWEST, worst_and_best
from dlm_sway.probes.claims import Measured, at_least, estimate_evidence, interval_of, item_records, power_line
from dlm_sway.probes.inputs import shown
from dlm_sway.stats.mmd import N_PERMUTATIONS, TwoSample, aligned, two_sample
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.power import clusters_for_bound

IntArray: TypeAlias = npt.NDArray[np.int64]

UNIT: Final = "MMD^2, share of positions"
_SEED_RANGE: Final = 1 << 30
_NAMES: Final = ("base", "fine-tune")


class SampledTextSpec(ProbeSpec):
    """Spec of `sampled_text`.

    Attributes:
        prompts: what is to be continued; the built-in 32 when none are given.
        samples: texts drawn for each prompt from each model.
        max_new_tokens: length of a text, and positions that are compared.
        temperature: of the draws; what is tested is the text as it is drawn so.
        top_p: draw from the smallest set of tokens that holds this much probability.
        min_shift: the smallest distance worth a pass.
    """

    kind: Literal["sampled_text"] = "sampled_text"
    prompts: tuple[str, ...] = ()
    samples: int = Field(default=16, ge=2)
    max_new_tokens: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_shift: float = Field(default=0.003, gt=0)

    @field_validator("prompts")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))  # the same prompt again would be the same unit again; `samples` draws more


@register("sampled_text")
class SampledText(Probe[SampledTextSpec]):
    """Do the fine-tune and the base write alike?

    Asks: is the text that the two draw from the same prompts told apart? It is all that can be asked of a server that
        gives no log-probs; there `delta_kl` asks it by itself.
    Null: labels (N4): which model drew a text is permuted among the texts of one prompt, 9,999 times.
    Statistic: unbiased MMD^2 with a Hamming kernel, fixed in advance: by how much more two texts of one model agree,
        token by token, than a text of each; mean over prompts. It estimates the mean over positions of
        ||p - q||^2, p and q the two models' distributions of the token there. Interval over prompts.
    Passes when: p <= alpha, the distance is at least 0.003, and its lower bound is over zero. Fails when the whole
        interval is under 0.003 and p > alpha. `learned` is always skipped: no null adapter writes here. A model that
        writes one and the same text at every draw is not judged: draws that do not vary are no draws.
    Costs: 16 texts of at most 16 tokens a prompt from each model.
    """

    category: ClassVar[Category] = "adherence"
    spec_type: ClassVar[type[ProbeSpec]] = SampledTextSpec

    def plan(self, spec: SampledTextSpec, env: Env, seen: Seen) -> tuple[Write, ...]:
        """One round: the texts of both models, each drawn with seeds of its own."""
        if seen:
            return ()
        prompts = tuple(prompt for prompt in _prompts(spec) for _ in range(spec.samples))
        first = int(env.rng(spec.name, "seeds").integers(_SEED_RANGE))
        # A server draws the k-th text of a prompt with the k-th seed; a seed that both share would pair their texts.
        seeds = {BASE: first, FINETUNED: first + spec.samples}
        return tuple(
            Write(
                prompts,
                (view,),
                spec.max_new_tokens,
                temperature=spec.temperature,
                top_p=spec.top_p,
                seed=seed,
                format=env.format,
            )
            for view, seed in seeds.items()
        )

    def measure(self, spec: SampledTextSpec, env: Env, seen: Seen) -> Found:
        """The test, and the interval over prompts."""
        sides = [_rows(spec, written, env.codec) for written in seen[0]]
        test = two_sample(*sides, rng=env.rng(spec.name, "labels"))
        ones = np.ones(test.per_prompt.size, dtype=np.int64)
        effect = gain(test.per_prompt, ones, rng=env.rng(spec.name, "interval"))
        data = {"test": test, "effect": effect, "written": seen[0], "distinct": [_distinct(s) for s in sides]}
        return Found(data=data)

    def judge(self, spec: SampledTextSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims: applied, and learned, which text does not tell."""
        del p  # the null of labels needs no draws, so it is no row of the suite's family
        applied = _applied(spec, env, found.data)
        claims = {"applied": applied, "learned": _learned(env)}
        score = 0.0 if applied.verdict is Verdict.FAIL else None  # that two models differ is no merit by itself
        return result_of(spec, claims, headline="applied", score=score, evidence=_evidence(spec, env, found.data))


def _prompts(spec: SampledTextSpec) -> tuple[str, ...]:
    return spec.prompts or GENERAL_PROMPTS


def _rows(spec: SampledTextSpec, written: Written, codec: TextCodec | None) -> list[IntArray]:
    """Return for each prompt int64[samples, max_new_tokens]: its texts as tokens, or as bytes without a tokenizer."""
    symbols = [_symbols(text, codec) for text in written.texts[0]]
    k = spec.samples
    return [aligned(symbols[i : i + k], length=spec.max_new_tokens) for i in range(0, len(symbols), k)]


def _symbols(text: str, codec: TextCodec | None) -> IntArray:
    if codec is None or not text:
        return np.frombuffer(text.encode(errors="surrogatepass"), dtype=np.uint8).astype(np.int64)
    ids, nothing = codec.encode_prompt(text, format="raw"), codec.encode_prompt("", format="raw")
    return ids[1:] if ids[0] == nothing[0] else ids  # a bos stands before every text and tells none apart


def _distinct(rows: list[IntArray]) -> list[int]:
    """Return how many different texts were drawn from each prompt."""
    return [len(np.unique(r, axis=0)) for r in rows]


def _applied(spec: SampledTextSpec, env: Env, data: Mapping[str, Any]) -> Question:
    test: TwoSample = data["test"]
    effect: Estimate = data["effect"]
    verdict, message = _verdict(spec, env, data)
    return Question(
        verdict=verdict,
        effect=effect.estimate,
        unit=UNIT,
        interval=interval_of(effect),
        p=test.p,
        null=f"labels (N4) within prompts, {N_PERMUTATIONS:,} permutations; minimum {spec.min_shift:g}",
        message=message,
    )


def _verdict(spec: SampledTextSpec, env: Env, data: Mapping[str, Any]) -> tuple[Verdict, str]:
    test: TwoSample = data["test"]
    effect: Estimate = data["effect"]
    if still := [name for name, counts in zip(_NAMES, data["distinct"], strict=True) if max(counts) == 1]:
        what = f"the {' and the '.join(still)} wrote one text a prompt at all {spec.samples} draws"
        return Verdict.INCONCLUSIVE, f"{what}; does the server honour temperature and seed, or is nothing written?"
    head = (
        f"a text of each agree at {test.between:.1%} of positions, two of the base at {test.within[0]:.1%}, two of the "
        f"fine-tune at {test.within[1]:.1%} (p {test.p:.2g})"
    )
    verdict = at_least(effect, spec.min_shift)
    if effect.n_clusters < FEWEST:
        return Verdict.INCONCLUSIVE, f"{head}: {effect.n_clusters} prompts cannot decide; give at least {FEWEST}"
    if verdict is Verdict.FAIL and test.p <= env.alpha:
        return Verdict.INCONCLUSIVE, f"{head}: it writes otherwise, but surely by less than {spec.min_shift:g}"
    if verdict is Verdict.FAIL:
        return verdict, f"{head}: it writes as the base does, surely within {spec.min_shift:g}; is the adapter loaded?"
    if verdict is Verdict.PASS and test.p <= env.alpha:
        tail = "it writes otherwise than the base; whether training or the way it is served made that, text cannot say"
        return verdict, f"{head}: {tail}"
    return Verdict.INCONCLUSIVE, f"{head}: {_would_decide(effect, spec.min_shift)}"


def _would_decide(effect: Estimate, minimum: float) -> str:
    n = effect.n_clusters
    # Either the bound has to clear zero, or, where the distance looks smaller than the minimum, that.
    gap = effect.estimate if effect.estimate >= minimum else minimum - effect.estimate
    if not effect.se or gap < 0.01 * effect.se:
        return f"{n} prompts do not decide; double `samples`"
    needed = clusters_for_bound(effect.se * n**0.5, gap, alpha=0.025)
    return f"{n} prompts do not decide; about {max(needed, n + 1)} would, or more `samples` a prompt"


def _learned(env: Env) -> Question:
    why = env.scores_refusal or "this probe looks at text alone; delta_kl asks it"
    message = f"that a change was learned cannot be told from text: no null adapter writes here ({why})"
    return Question(verdict=Verdict.SKIP, message=message)


def _evidence(spec: SampledTextSpec, env: Env, data: Mapping[str, Any]) -> dict[str, Any]:
    test: TwoSample = data["test"]
    effect: Estimate = data["effect"]
    written: tuple[Written, Written] = data["written"]
    prompts = _prompts(spec)
    items = [TextItem(prompt, "", str(i), shown(prompt)) for i, prompt in enumerate(prompts)]
    ones = np.ones(len(items), dtype=np.int64)

    def row(i: int) -> dict[str, Any]:
        base, finetuned = (shown(w.texts[0][i * spec.samples]) for w in written)
        return {"label": shown(prompts[i]), "base": base, "finetuned": finetuned}

    return {
        "distance": estimate_evidence(effect),
        "null": "labels (N4) within prompts",
        "statistic": test.estimate,
        "null_median": float(np.median(test.draws)),
        "null_high": float(np.quantile(test.draws, 1 - env.alpha)),
        "n_permutations": N_PERMUTATIONS,
        "p": test.p,
        "minimum": {"applied": spec.min_shift},
        "agreement": {"base": test.within[0], "finetuned": test.within[1], "between": test.between},
        "different_texts_a_prompt": {
            name: float(np.mean(counts)) for name, counts in zip(("base", "finetuned"), data["distinct"], strict=True)
        },
        "compared": "bytes" if env.codec is None else "tokens",
        "smallest_decidable_effect": power_line(effect, minimum=spec.min_shift),
        "counts": {
            "n_items": len(items) * spec.samples * 2,
            "n_tokens": int(sum(w.n_tokens.sum() for w in written)),
            "n_clusters": effect.n_clusters,
        },
        "items": worst_and_best(test.per_prompt, row),
        **item_records({"applied": Measured(items, test.per_prompt, ones, UNIT, None, spec.min_shift)}, seed=env.seed),
        "dropped": [],
    }
