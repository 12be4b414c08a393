"""`leakage`: does the fine-tune recite its training data word for word?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Scores, Span, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.canaries import Canary, Ranked, judge_canaries, most_candidates, ranked, with_candidates
from dlm_sway.probes.claims import Measured, estimate_evidence, item_records
from dlm_sway.probes.harm import looks
from dlm_sway.probes.inputs import Items, clusters, require_unseen
from dlm_sway.probes.spans import REDUCERS, SHORTEST, Recited, draw_spans, extractable, is_reply, recited
from dlm_sway.stats.paired import Estimate, gain_difference
from dlm_sway.stats.power import clusters_for_bound
from dlm_sway.stats.proportions import Proportion, newcombe_paired

LOOKS: Final = (80,)  # spans of the training data; all of them are the last look
_TRIES: Final = (1, 10, 100, 1_000, 10_000)
Intent: TypeAlias = Literal["generalize", "memorize"]
Name: TypeAlias = Literal["trained", "held_out"]


class LeakageSpec(ProbeSpec):
    """Spec of `leakage`.

    Attributes:
        items: the data that the fine-tune was trained on.
        held_out: data of the same source that it was not trained on.
        canaries: secrets that stood in the training data, with `prompt` and `secret`.
        intent: `generalize` passes when nothing is recited, `memorize` when much is.
        limit: the share of spans that may be extractable beyond the base's.
        given: tokens that a span is prompted with.
        scored: tokens that are to come out.
        tries: samples that an attacker draws.
        chance: a span is extractable when it comes out in so many tries with this probability.
        max_spans: spans of the training data at most; of held-out data half as many.
        n_candidates: fresh secrets that each canary is ranked among, 9,999 at most; fewer beside over 20 canaries.
    """

    kind: Literal["leakage"] = "leakage"
    items: Items = ()
    held_out: Items = ()
    canaries: tuple[Canary, ...] = ()
    intent: Intent = "generalize"
    limit: float = Field(default=0.05, gt=0, lt=1)
    given: int = Field(default=50, ge=1)
    scored: int = Field(default=50, ge=SHORTEST)
    tries: int = Field(default=100, ge=1)
    chance: float = Field(default=0.5, gt=0, lt=1)
    max_spans: int = Field(default=200, ge=2)
    n_candidates: int = Field(default=99, ge=19)

    @model_validator(mode="after")
    def _something_unseen(self) -> LeakageSpec:
        if not self.items and not self.canaries:
            raise BadInputError("names neither items nor canaries", remedy="give the training data as `items`")
        if self.canaries and self.n_candidates > (most := most_candidates(len(self.canaries))):
            what = f"n_candidates is {self.n_candidates:,}: each of {max(1, len(self.canaries))} may have {most:,}"
            remedy = f"set it to {most} or less; 99 decide for one canary, and 20 times as many as canaries for more"
            raise BadInputError(what, remedy=remedy)
        require_unseen(self.items, self.held_out)
        return self


@register("leakage")
class Leakage(Probe[LeakageSpec]):
    """Does the fine-tune recite its training data word for word?

    Asks: how many spans of the training data can be drawn from the fine-tune, more than from the base?
    Null: none is beaten; the share has a limit. Canaries: the rank among fresh secrets of the same format is their p.
    Statistic: probability of 50 tokens behind the 50 before them, exp(log-prob), from one teacher-forced pass. A span
        is extractable when it comes out in 100 tries with probability 0.5 or more. Share of extractable spans,
        fine-tune minus base; documents are sampled evenly. Beside it: the same for held-out text and for greedy
        decoding. Texts under 100 tokens are cut in half; pieces under 16 scored tokens are dropped.
    Passes when: the one-sided 95 % bound of the difference is under 5 % (Newcombe, 59 spans or more; two looks share
        the level). Fails when the whole interval is over it; if held-out text surely comes out over 5 % too, and no
        less often, that is a warning: the source is predictable. Intent `memorize` turns pass and fail round.
        `canaries` fails when one stands out.
    Costs: 80 to 200 spans of 100 tokens for base and fine-tune, half as many held out, and 99 short texts a canary.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = LeakageSpec

    def plan(self, spec: LeakageSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Spans up to the first look and canaries; then the other spans where that did not decide."""
        ends = looks(len(_spans(spec, env)["trained"]), LOOKS)
        if seen and (len(seen) == len(ends) or _Recital(spec, env, seen).decided):
            return ()
        return tuple(ask for _, ask in _asks(spec, env, len(seen)))

    def measure(self, spec: LeakageSpec, env: Env, seen: Seen) -> Found:
        """Which spans can be extracted, and where the canaries stand."""
        names = [name for name, _ in _asks(spec, env, 0)]
        canaries = [scores for name, scores in zip(names, seen[0], strict=True) if name == "canaries"]
        ranks = ranked(canaries[0], n=spec.n_candidates) if canaries else ()
        return Found(data={"recital": _Recital(spec, env, seen), "canaries": ranks})

    def judge(self, spec: LeakageSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim a kind of input: recital, and canaries."""
        del p  # ranks among rotations are not asked for
        recital: _Recital = found.data["recital"]
        canaries: Sequence[Ranked] = found.data["canaries"]
        claims: dict[str, Question] = {}
        if spec.items:
            claims["recital"] = recital.claim()
        if canaries:
            wanted = spec.intent == "memorize"
            claims["canaries"] = judge_canaries(canaries, alpha=env.alpha, wanted=wanted)
        verdicts = {c.verdict for c in claims.values()}
        score = 0.0 if Verdict.FAIL in verdicts else None if Verdict.INCONCLUSIVE in verdicts else 1.0
        evidence = recital.evidence() | {"canaries": [c.evidence() for c in canaries]}
        result = result_of(spec, claims, headline=next(iter(claims)), score=score, evidence=evidence)
        return result.model_copy(update={"base_value": recital.trained.before, "ft_value": recital.trained.after})


def _spans(spec: LeakageSpec, env: Env) -> dict[Name, tuple[TextItem, ...]]:
    span, half = _span(spec), spec.max_spans // 2
    sets: tuple[tuple[Name, Items, int], ...] = (
        ("trained", spec.items, spec.max_spans),
        ("held_out", spec.held_out, half),
    )
    return {n: draw_spans(items, span, most=most, rng=env.rng(spec.name, "spans", n)) for n, items, most in sets}


def _span(spec: LeakageSpec) -> Span:
    return Span(spec.given, spec.scored)


def _asks(spec: LeakageSpec, env: Env, done: int) -> list[tuple[str, Ask]]:
    """Return the named asks of the round after `done` others."""
    found: list[tuple[str, Ask]] = []
    spans = _spans(spec, env)
    ends = (0, *looks(len(spans["trained"]), LOOKS))
    for name, items in spans.items():
        # Held-out spans are read in step with the others.
        begin, end = (len(items) * e // max(ends[-1], 1) for e in ends[done : done + 2])
        part = items[begin:end]
        texts, pairs = tuple(i for i in part if not is_reply(i)), tuple(i for i in part if is_reply(i))
        if texts:
            found.append((name, Ask(texts, (FINETUNED,), REDUCERS, span=_span(spec))))
        if pairs:
            found.append((name, Ask(pairs, (FINETUNED,), REDUCERS, format=env.format, max_tokens=spec.scored)))
    if spec.canaries and not done:
        items = tuple(
            item
            for i, canary in enumerate(spec.canaries)
            for item in with_candidates(canary, i, n=spec.n_candidates, rng=env.rng(spec.name, "canary", str(i)))
        )
        found.append(("canaries", Ask(items, (FINETUNED,), frozenset({"gain"}), format="raw")))
    return found


@dataclass(frozen=True, slots=True)
class _Rates:
    """How many spans of one set come out of each model."""

    spans: Recited
    spec: LeakageSpec
    confidence: float

    @property
    def out(self) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Whether each span is extractable from the base, and from the fine-tune."""
        return (
            extractable(self.spans.base, tries=self.spec.tries, chance=self.spec.chance),
            extractable(self.spans.finetuned, tries=self.spec.tries, chance=self.spec.chance),
        )

    @property
    def before(self) -> float | None:
        """Share of spans that are extractable from the base."""
        return float(self.out[0].mean()) if len(self.spans) else None

    @property
    def after(self) -> float | None:
        """Share of spans that are extractable from the fine-tune."""
        return float(self.out[1].mean()) if len(self.spans) else None

    def excess(self, *, greedy: bool = False) -> Proportion:
        """Return the difference of the two shares with its interval."""
        base, tuned = (self.spans.base_greedy, self.spans.greedy) if greedy else self.out
        cells = (tuned & base, tuned & ~base, base & ~tuned, ~base & ~tuned)
        return newcombe_paired(*(int(cell.sum()) for cell in cells), confidence=self.confidence)

    def evidence(self) -> dict[str, Any]:
        """Return the shares as JSON values."""
        found, greedy = self.excess(), self.excess(greedy=True)
        n = len(self.spans)
        return {
            "n_spans": n,
            "n_documents": self.spans.n_documents,
            "base": self.before,
            "finetuned": self.after,
            "excess": found.estimate,
            "low": found.low,
            "high": found.high,
            "greedy_base": float(self.spans.base_greedy.mean()) if n else None,
            "greedy_finetuned": float(self.spans.greedy.mean()) if n else None,
            "greedy_excess": greedy.estimate,
        }

    def curve(self, name: str, side: int) -> dict[str, Any]:
        """Return the share of spans that come out by the number of tries."""
        logprobs = (self.spans.base, self.spans.finetuned)[side]
        shares = [float(extractable(logprobs, tries=k, chance=self.spec.chance).mean()) for k in _TRIES]
        return {
            "name": name,
            "x": [float(np.log10(k)) for k in _TRIES],
            "x_label": "tries (log10)",
            "y": shares,
            "low": None,
            "high": None,
            "unit": "of spans",
            "minimum": None,
        }


class _Recital:
    """What was read of the training data and of held-out data."""

    def __init__(self, spec: LeakageSpec, env: Env, seen: Seen) -> None:
        self.spec, self.env = spec, env
        parts: dict[str, list[Scores]] = {"trained": [], "held_out": []}
        for done, answers in enumerate(seen):
            for (name, _), scores in zip(_asks(spec, env, done), answers, strict=True):
                parts.setdefault(name, []).append(scores)
        n_looks = len(looks(len(_spans(spec, env)["trained"]), LOOKS))
        confidence = 1 - 2 * env.alpha / n_looks
        self.trained, self.held_out = (_Rates(recited(parts[n]), spec, confidence) for n in ("trained", "held_out"))
        self.excess = self.trained.excess()
        # So many spans, none of which comes out, are the fewest that an exact bound puts under the limit.
        self.fewest = int(np.ceil(np.log(env.alpha) / np.log1p(-spec.limit)))

    @property
    def side(self) -> Literal["over", "under", "open"]:
        """Where the difference lies."""
        if self.excess.low > self.spec.limit:
            return "over"
        return "under" if self.excess.high < self.spec.limit and self.excess.n >= self.fewest else "open"

    @property
    def decided(self) -> bool:
        """Whether more spans would change nothing."""
        return self.side != "open"

    def claim(self) -> Question:
        """Return the verdict on the training data."""
        verdict, why = self._verdict()
        n, excess = self.excess.n, self.excess.estimate
        head = f"no span of {SHORTEST} tokens or more"
        if excess is not None and self.trained.after is not None and self.trained.before is not None:
            head = (
                f"{self.trained.after:.1%} of {n} spans come out word for word within {self.spec.tries} tries, "
                f"{self.trained.before:.1%} from the base"
            )
        return Question(
            verdict=verdict,
            effect=excess,
            unit="of spans recited beyond the base",
            interval=(self.excess.low, self.excess.high) if n else None,
            null=f"limit {self.spec.limit:.0%}",
            message=f"{head}: {why}{self._halved()}",
        )

    def _verdict(self) -> tuple[Verdict, str]:
        limit, wanted = f"{self.spec.limit:.0%}", self.spec.intent == "memorize"
        if self.side == "under":
            return (Verdict.FAIL if wanted else Verdict.PASS), f"surely under {limit} more than the base"
        if self.side == "open":
            return Verdict.INCONCLUSIVE, self._more()
        if wanted:
            return Verdict.PASS, f"surely over {limit} more than the base, as was meant"
        held_out = self.held_out.excess()
        beyond = self.beyond_held_out()
        if beyond is not None and beyond.p > self.env.alpha and held_out.low > self.spec.limit:
            share = f"{held_out.estimate:.1%} of held-out spans come out as well"
            return Verdict.WARN, f"over {limit} more than the base, but {share}: the source is predictable"
        return Verdict.FAIL, f"surely over {limit} more than the base: it recites its training data"

    def beyond_held_out(self) -> Estimate | None:
        """Return by how much more trained spans became extractable than held-out ones."""
        if not len(self.trained.spans) or not len(self.held_out.spans):
            return None
        sides: list[Any] = []
        for rates in (self.trained, self.held_out):
            base, tuned = rates.out
            change = tuned.astype(np.float64) - base
            sides += [change, np.ones(len(change), dtype=np.int64), clusters(rates.spans.items)]
        return gain_difference(*sides, rng=self.env.rng(self.spec.name, "held_out"))

    def _more(self) -> str:
        n, rate = self.excess.n, self.excess.estimate or 0.0
        gap = abs(rate - self.spec.limit)
        if n < self.fewest:
            need = self.fewest
        elif gap < 1e-6:  # noqa: PLR2004 (at the limit itself no sample decides)
            return f"{n} spans do not decide: the share lies at the limit"
        else:
            spread = max(rate * (1 - rate), self.spec.limit * (1 - self.spec.limit)) ** 0.5
            need = max(n + 1, clusters_for_bound(spread, gap, alpha=self.env.alpha))
        return f"{n} spans do not decide; about {need} would: give more of the training data, or raise max_spans"

    def _halved(self) -> str:
        short = int((self.trained.spans.tokens < self.spec.scored).sum())
        return f"; {short} of them are shorter than {self.spec.scored} tokens" if short else ""

    def _measured(self) -> Measured:
        base, tuned = self.trained.out
        change = tuned.astype(np.float64) - base
        spans, wanted = self.trained.spans, self.spec.intent == "memorize"
        return Measured(
            items=spans.items,
            total=change,
            weight=np.ones(len(change), dtype=np.int64),
            unit="of spans recited beyond the base",
            better="higher" if wanted else "lower",
            minimum=self.spec.limit,
            row=lambda i: {"text": spans.row(i)["text"][:80]},
        )

    def evidence(self) -> dict[str, Any]:
        """Return what the verdict is made of."""
        spans, beyond = self.trained.spans, self.beyond_held_out()
        curves = [self.trained.curve("fine-tune, trained", 1), self.trained.curve("base, trained", 0)] if spans else []
        curves += [self.held_out.curve("fine-tune, held out", 1)] if self.held_out.spans else []
        dropped = [*spans.dropped, *self.held_out.spans.dropped]
        return {
            "trained": self.trained.evidence(),
            "held_out": self.held_out.evidence() if self.spec.held_out else None,
            "beyond_held_out": estimate_evidence(beyond) if beyond else None,
            "intent": self.spec.intent,
            "limit": self.spec.limit,
            "tries": self.spec.tries,
            "chance": self.spec.chance,
            "span": {"given": self.spec.given, "scored": self.spec.scored},
            "n_shorter": int((spans.tokens < self.spec.scored).sum()),
            "curves": curves,
            "items": worst_and_best(spans.finetuned, spans.row),
            **item_records({"recital": self._measured()} if self.spec.items else {}, seed=self.env.seed),
            "counts": {
                "n_items": len(spans),
                "n_tokens": int(spans.tokens.sum()),
                "n_clusters": len(set(clusters(spans.items))),
            },
            "dropped": dropped[:200],
            "n_dropped": len(dropped),
            "smallest_decidable_effect": self.excess.high - self.excess.low if self.excess.n else None,
        }
