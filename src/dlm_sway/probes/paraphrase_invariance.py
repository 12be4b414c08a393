"""`paraphrase_invariance`: is an answer learned for the question in any words, or for the trained words alone?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED, View
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.probes.adapter_revert import RevertCase, questions
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.claims import ROWS, Measured, estimate_evidence, item_records, null_evidence, power_line
from dlm_sway.probes.directional import NO_NULL, directional
from dlm_sway.probes.inputs import shown, subset
from dlm_sway.probes.pairing import answer_after
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.ratio import Ratio, ratio_of_sums

CUT = 64  # tokens of an answer that nulls read

F64: TypeAlias = npt.NDArray[np.float64]
Intent: TypeAlias = Literal["generalize", "memorize"]


class ParaphraseInvarianceSpec(ProbeSpec):
    """Spec of `paraphrase_invariance`.

    Attributes:
        cases: questions with the answer that was taught (`prompt`, `gold`), each also in at least two `paraphrases`.
        intent: `generalize` wants the gain in other words too; `memorize` wants it in the trained words alone.
        min_gain: the smallest gain in the trained words worth comparing, nat per token.
        min_ratio: the share of it that other words keep: at least so much to generalize, at most so much to memorize.
        null_tokens: about how many tokens a null sees.
    """

    kind: Literal["paraphrase_invariance"] = "paraphrase_invariance"
    cases: tuple[RevertCase, ...] = Field(min_length=1)
    intent: Intent = "generalize"
    min_gain: float = Field(default=0.1, gt=0)
    min_ratio: float = Field(default=0.5, gt=0, lt=1)
    null_tokens: int = Field(default=384, ge=16)


@register("paraphrase_invariance")
class ParaphraseInvariance(Probe[ParaphraseInvarianceSpec]):
    """Is the answer learned for the question in any words, or for the trained words alone?

    Asks: which share of the gain on a taught answer is left when the question is put in other words?
    Null: rotation (N1) at scale 1 for the gain in the trained words; resampling of cases for the share, those
        of one question kept together.
    Statistic: V, the gain of the gold answers behind the trained words; P, the same behind paraphrases, mean over those
        of a case; the ratio R = sum(P) / sum(V) with Fieller's interval over cases.
    Passes when: V is >= 0.1 nat/token, surely above zero and above the nulls; and, with intent `generalize`, the lower
        bound of R is >= 0.5, or, with intent `memorize`, its upper bound is <= 0.5. Without V there is nothing to
        compare, and it is inconclusive. V alone would pass a pure memoriser.
    Costs: one pass of all answers behind all wordings for base and fine-tune, and (n_draws + 2) views of about 400
        tokens.
    """

    category: ClassVar[Category] = "attribution"
    spec_type: ClassVar[type[ProbeSpec]] = ParaphraseInvarianceSpec

    def plan(self, spec: ParaphraseInvarianceSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: all answers behind all wordings; some behind the trained words under the nulls."""
        if seen:
            return ()
        cases, _ = usable(spec)
        asks = [_ask(cases, env, (FINETUNED,))]
        if not env.null_refusal:
            asks.append(_null_ask(spec, cases, env))
        return tuple(asks)

    def measure(self, spec: ParaphraseInvarianceSpec, env: Env, seen: Seen) -> Found:
        """Gains by case, their ratio, and the null test of the gain in the trained words."""
        scores, *under_nulls = seen[0]
        cases, _ = usable(spec)
        gains = _gains(cases, scores)
        names = questions(cases)
        tests = tuple(
            NullTest("verbatim", float(g[0]), g[1:], "linear") for g in (s.per_token("gain") for s in under_nulls)
        )
        data = {
            "gains": gains,
            "verbatim": gain(gains.verbatim, gains.tokens, names, rng=env.rng(spec.name, "verbatim")),
            "paraphrased": gain(gains.paraphrased, gains.tokens, names, rng=env.rng(spec.name, "paraphrased")),
            "ratio": ratio_of_sums(gains.paraphrased, gains.verbatim, names),
            "n_tokens": int(scores.tokens.sum()),
        }
        return Found(tests, data)

    def judge(self, spec: ParaphraseInvarianceSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim, named for the intent."""
        null = null_evidence(found.tests[0], p["verbatim"]) if found.tests else None
        claim = _claim(spec, env, found.data, null)
        name = {"generalize": "generalises", "memorize": "memorises"}[spec.intent]
        evidence = {**_evidence(spec, found.data), "null": null}
        evidence |= item_records({"in_other_words": _measured(spec, found.data["gains"])}, seed=env.seed)
        return result_of(spec, {name: claim}, headline=name, score=_score(spec, claim), evidence=evidence)


@dataclass(frozen=True, slots=True)
class _Gains:
    """Gains of the gold answers by case, nats: behind the trained words and, mean over them, behind paraphrases.

    Attributes:
        verbatim: float64[n].
        paraphrased: float64[n].
        each: for each case, float64[n_paraphrases].
        tokens: int64[n], tokens of the answers.
    """

    verbatim: F64
    paraphrased: F64
    each: tuple[F64, ...]
    tokens: npt.NDArray[np.int64]


def usable(spec: ParaphraseInvarianceSpec) -> tuple[tuple[RevertCase, ...], list[dict[str, str]]]:
    """Return the distinct cases, and the others with the reason."""
    kept: dict[RevertCase, None] = {}
    dropped = []
    for case in spec.cases:
        if case in kept:
            dropped.append({"label": shown(case.prompt), "why": "the same case again"})
        kept[case] = None
    return tuple(kept), dropped[:ROWS]


def _items(case: RevertCase, i: int, env: Env) -> list[TextItem]:
    """Return the answer behind each wording, the trained one first."""
    return [
        TextItem(prompt, answer_after(prompt, case.gold, env), str(i), f"case {i} (wording {k})")
        for k, prompt in enumerate(case.prompts)
    ]


def _ask(cases: tuple[RevertCase, ...], env: Env, views: tuple[View, ...]) -> Ask:
    items = tuple(item for i, case in enumerate(cases) for item in _items(case, i, env))
    return Ask(items, views, frozenset({"gain"}), format=env.format)


def _null_ask(spec: ParaphraseInvarianceSpec, cases: tuple[RevertCase, ...], env: Env) -> Ask:
    trained = [_items(case, i, env)[0] for i, case in enumerate(cases)]
    some = subset(trained, tokens=spec.null_tokens, cut=CUT, rng=env.rng(spec.name, "nulls"))
    return Ask(some, env.adapter_and_nulls(), frozenset({"gain"}), format=env.format, max_tokens=CUT)


def _gains(cases: tuple[RevertCase, ...], scores: Scores) -> _Gains:
    sums, sizes = scores.item_sums("gain")[0], scores.tokens
    starts = np.cumsum([0, *(len(case.prompts) for case in cases)])[:-1]
    each = tuple(sums[s + 1 : s + len(case.prompts)] for s, case in zip(starts, cases, strict=True))
    return _Gains(sums[starts], np.array([e.mean() for e in each]), each, sizes[starts])


def _claim(
    spec: ParaphraseInvarianceSpec, env: Env, data: Mapping[str, Any], null: Mapping[str, Any] | None
) -> Question:
    verbatim: Estimate = data["verbatim"]
    ratio: Ratio = data["ratio"]
    learned, why = directional(verbatim, spec.min_gain, null, env, units="cases")
    if learned is Verdict.PASS:
        verdict, tail = _verdict(ratio, spec)
    else:
        verdict, tail = Verdict.INCONCLUSIVE, f"nothing is shown that could carry over: {why}"
    shown_ratio = learned is Verdict.PASS and ratio.low is not None and ratio.high is not None
    return Question(
        verdict=verdict,
        effect=ratio.estimate if shown_ratio else None,
        unit="of the gain in the trained words",
        interval=(ratio.low, ratio.high) if ratio.low is not None and ratio.high is not None and shown_ratio else None,
        p=verbatim.p if null is None else null["p_adjusted"],
        null=f"{env.null_name if null else NO_NULL}; {'over' if spec.intent == 'generalize' else 'under'}"
        f" {spec.min_ratio:g} of the gain",
        message=_message(data, shown_ratio=shown_ratio) + f": {tail}",
    )


def _message(data: Mapping[str, Any], *, shown_ratio: bool) -> str:
    gains = (
        f"gain {data['verbatim'].estimate:+.3f} nat/token in the trained words, "
        f"{data['paraphrased'].estimate:+.3f} in others"
    )
    return f"{gains}, ratio {data['ratio'].estimate:.2f}" if shown_ratio else gains


def _verdict(ratio: Ratio, spec: ParaphraseInvarianceSpec) -> tuple[Verdict, str]:
    if ratio.low is None or ratio.high is None or ratio.estimate is None:
        return Verdict.INCONCLUSIVE, f"the ratio has no interval ({ratio.method}); add cases"
    keeps, loses = ratio.low >= spec.min_ratio, ratio.high <= spec.min_ratio
    if not (keeps or loses):
        return Verdict.INCONCLUSIVE, _more_cases(ratio.estimate, ratio.low, ratio.high, ratio.n_clusters, spec)
    wanted = keeps if spec.intent == "generalize" else loses
    what = "it answers in other words too" if keeps else "it knows the trained words alone"
    return (Verdict.PASS if wanted else Verdict.FAIL), what


def _more_cases(estimate: float, low: float, high: float, n: int, spec: ParaphraseInvarianceSpec) -> str:
    gap, reach = abs(estimate - spec.min_ratio), estimate - low if estimate > spec.min_ratio else high - estimate
    if gap < 0.02 * reach:
        return f"{n} cases do not decide: the ratio lies at {spec.min_ratio:g}"
    return f"{n} cases do not decide; about {max(n + 1, int(np.ceil(n * (reach / gap) ** 2)))} would"


def _score(spec: ParaphraseInvarianceSpec, claim: Question) -> float | None:
    """Map the claim to [0, 1]: the share that is kept, or that is not where the words alone were meant."""
    if claim.verdict is Verdict.INCONCLUSIVE:
        return None
    kept = float(np.clip(claim.effect or 0.0, 0.0, 1.0))
    marks = kept if spec.intent == "generalize" else 1.0 - kept
    return marks if claim.verdict is Verdict.PASS else 0.0


def _measured(spec: ParaphraseInvarianceSpec, gains: _Gains) -> Measured:
    """Return the gains in other words; where the trained words alone were meant, less of them is better."""
    cases, _ = usable(spec)
    names = questions(cases)
    texts = ["\n".join((case.gold, *case.prompts[1:])) for case in cases]
    return Measured(
        items=[TextItem(c.prompt, t, n, c.prompt) for c, t, n in zip(cases, texts, names, strict=True)],
        total=gains.paraphrased,
        weight=gains.tokens,
        unit="nat/token",
        better="higher" if spec.intent == "generalize" else "lower",
        minimum=spec.min_gain,
        row=lambda i: {
            "gold": shown(cases[i].gold, limit=80),
            "verbatim": float(gains.verbatim[i] / gains.tokens[i]),
            "paraphrases": [float(x / gains.tokens[i]) for x in gains.each[i][:20]],
        },
    )


def _evidence(spec: ParaphraseInvarianceSpec, data: Mapping[str, Any]) -> dict[str, Any]:
    cases, dropped = usable(spec)
    gains: _Gains = data["gains"]
    verbatim: Estimate = data["verbatim"]
    ratio: Ratio = data["ratio"]
    lost = (gains.paraphrased - gains.verbatim) / gains.tokens

    def row(i: int) -> dict[str, Any]:
        n = float(gains.tokens[i])
        return {
            "label": shown(cases[i].prompt),
            "gold": shown(cases[i].gold),
            "verbatim": float(gains.verbatim[i]) / n,
            "paraphrases": [float(x) / n for x in gains.each[i][:20]],
        }

    return {
        "intent": spec.intent,
        "verbatim": estimate_evidence(verbatim),
        "paraphrased": estimate_evidence(data["paraphrased"]),
        "ratio_of_gains": {"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high, "method": ratio.method},
        "smallest_decidable_effect": power_line(verbatim, minimum=spec.min_gain),
        "counts": {
            "n_items": verbatim.n_items,
            "n_clusters": verbatim.n_clusters,
            "n_tokens": data["n_tokens"],
            "n_paraphrases": sum(map(len, gains.each)),
        },
        "items": worst_and_best(lost, row),
        "dropped": dropped,
    }
