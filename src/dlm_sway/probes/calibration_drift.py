"""`calibration_drift`: did the fine-tune unlearn what the base knew, or make the model too sure of itself?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, field_validator
from scipy import special

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.data.facts import facts_hash
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.choices import F64, GAP, I64, Answered, Choice, answered, distinct, option_items, shipped
from dlm_sway.probes.claims import Measured, estimate_evidence, item_records
from dlm_sway.probes.harm import FEWEST, by_stratum, critical_value, judged, looks, stratum_row
from dlm_sway.probes.inputs import reading_order
from dlm_sway.stats.calibration import (
    Slope,
    answered_right,
    brier,
    log_loss,
    option_logprobs,
    slope,
    slope_change,
)
from dlm_sway.stats.equivalence import NonInferiority, non_inferiority
from dlm_sway.stats.paired import gain, mcnemar
from dlm_sway.stats.proportions import Proportion, clopper_pearson, newcombe_paired
from dlm_sway.stats.sequential import small_sample

LOOKS: Final = (80, 160)  # facts; all of them are always the last look
_WEIGHTS: Final = 1000  # what the base knew, in thousandths: weights are counts
_BINS: Final = 5
_ALPHA: Final = 0.05  # two-sided, of McNemar's test where it only warns


class CalibrationDriftSpec(ProbeSpec):
    """Spec of `calibration_drift`.

    Attributes:
        facts: questions with `prompt`, `options` and `answer`, optionally `category`; the shipped 320 when none.
        margin: the largest loss in log loss that counts as no harm, nat per question.
        accuracy_margin: the largest loss in accuracy that counts as no harm, a share of the questions.
        template: how an option stands behind its prompt. The full stop makes it a whole answer.
        normalise: `none` scores an option by its log-prob in full, `length` by the mean over its tokens.
    """

    kind: Literal["calibration_drift"] = "calibration_drift"
    facts: tuple[Choice, ...] = ()
    margin: float = Field(default=0.05, gt=0)
    accuracy_margin: float = Field(default=0.03, gt=0, lt=1)
    template: str = " {}."
    normalise: Literal["none", "length"] = "none"

    @field_validator("template")
    @classmethod
    def _has_a_gap(cls, value: str) -> str:
        if GAP not in value:
            raise ValueError(f"has no {GAP} for the option to stand in")
        return value


@register("calibration_drift")
class CalibrationDrift(Probe[CalibrationDriftSpec]):
    """Did the fine-tune unlearn what the base knew, or make the model too sure of itself?

    Asks: is the loss of log loss over facts with four options inside the margin, on what the base knew and on all?
    Null: none is beaten; "no harm" is non-inferiority with a margin. Accuracy: exact McNemar on facts lost and won.
    Statistic: each option's log-prob in full, with its full stop, renormalised over the options of a fact; change of
        -log p(right), nat per fact. `knowledge` weighs a fact by how far the base's p(right) is above chance,
        `calibration` counts all alike. Beside them: Brier's score, accuracy, calibration slope.
    Passes when: both one-sided 95 % bounds are under 0.05 nat. Fails when either is wholly over it, when a category's
        own bound, corrected for their number, is, or when accuracy surely fell by more than 3 points. Accuracy that is
        not decided is shown and not claimed: log loss sees the same harm with fewer facts. Facts are read in looks
        of 80, 160 and all until decided; Pocock's constant pays for the looking.
    Costs: 80 to 320 facts of about 30 tokens for base and fine-tune, their four options behind one reading.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = CalibrationDriftSpec

    def plan(self, spec: CalibrationDriftSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Each round reads on to the next look, until both bounds are decided or one is outside."""
        choices, ends = _choices(spec, env), _looks(spec)
        if seen and (len(seen) == len(ends) or _bounds(spec, env, seen).decided):
            return ()
        begin = ends[len(seen) - 1] if seen else 0
        items = option_items(choices[begin : ends[len(seen)]], spec.template)
        return (Ask(items, (FINETUNED,), frozenset({"gain"}), format="raw"),)

    def measure(self, spec: CalibrationDriftSpec, env: Env, seen: Seen) -> Found:
        """The bounds at the last look."""
        return Found(data={"bounds": _bounds(spec, env, seen)})

    def judge(self, spec: CalibrationDriftSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims, knowledge and calibration, and accuracy where it is decided."""
        del p  # no null is drawn
        bounds: _Bounds = found.data["bounds"]
        strata = _by_category(bounds, spec, env)
        harmed = [f"{name} ({f.estimate:+.2f})" for name, f in strata.items() if f.decision == "outside"]
        accuracy = _Accuracy(bounds.answered, spec.accuracy_margin, bounds.level)
        claims = {
            "knowledge": _knowledge(bounds),
            "calibration": _claim(bounds.all, harmed, f"{len(bounds.change)} facts", len(bounds.change)),
            **accuracy.claim(),
        }
        verdicts = {c.verdict for c in claims.values()}
        score = 0.0 if Verdict.FAIL in verdicts else None if Verdict.INCONCLUSIVE in verdicts else 1.0
        evidence = _evidence(spec, env, bounds) | {
            "accuracy": accuracy.evidence(),
            "categories": [{"category": name, **stratum_row(f)} for name, f in strata.items()],
        }
        result = result_of(spec, claims, headline="knowledge", score=score, evidence=evidence)
        return result.model_copy(update={"base_value": bounds.losses[0], "ft_value": bounds.losses[1]})


def _choices(spec: CalibrationDriftSpec, env: Env) -> tuple[Choice, ...]:
    """Return what is read, in an order whose beginnings are balanced; the shipped facts come in one."""
    if not spec.facts:
        return distinct(shipped())[0]
    facts = distinct(spec.facts)[0]
    return reading_order(facts, [fact.category for fact in facts], rng=env.rng(spec.name, "order"))


def _looks(spec: CalibrationDriftSpec) -> tuple[int, ...]:
    return looks(len(distinct(spec.facts or shipped())[0]), LOOKS)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The loss over the facts read so far.

    Attributes:
        answered: what both models say.
        change: float64[n], by how much each fact's log loss rose.
        losses: mean log loss of base and fine-tune.
        weight: int64[n], what the base knew, in thousandths.
        known: the loss by that weight; None where the base knew nothing.
        all: the loss over all facts alike.
        level: one-sided level of each bound at this look.
    """

    answered: Answered
    change: F64
    losses: tuple[float, float]
    weight: I64
    known: NonInferiority | None
    all: NonInferiority
    level: float

    @property
    def effective(self) -> float:
        """How many facts known for sure tell as much as these by their weight (Kish)."""
        squares = float((self.weight.astype(np.float64) ** 2).sum())
        return float(self.weight.sum()) ** 2 / squares if squares else 0.0

    @property
    def decided(self) -> bool:
        """Whether reading on can change no verdict of the two claims."""
        if self.known is None:
            return self.all.decision == "outside"
        decisions = {self.all.decision, self.known.decision}
        worth = min(_worth(self.known, self.effective), _worth(self.all, len(self.change)))
        return "outside" in decisions or ("undecided" not in decisions and worth >= FEWEST)


def _bounds(spec: CalibrationDriftSpec, env: Env, seen: Seen) -> _Bounds:
    read = answered(_choices(spec, env), [scores for (scores,) in seen], normalise=spec.normalise)
    before, after = (log_loss(option_logprobs(s), read.right) for s in (read.base, read.finetuned))
    change, weight = after - before, np.round(_WEIGHTS * read.known).astype(np.int64)
    sure = weight > 0
    names = np.array(read.clusters)
    return _Bounds(
        answered=read,
        change=change,
        losses=(float(before.mean()), float(after.mean())),
        weight=weight,
        known=_bound(spec, env, (change * weight)[sure], weight[sure], names[sure].tolist()) if sure.any() else None,
        all=_bound(spec, env, change, np.ones_like(weight), names.tolist()),
        level=float(special.ndtr(-critical_value(_looks(spec), alpha=env.alpha))),
    )


def _bound(spec: CalibrationDriftSpec, env: Env, loss: F64, weight: I64, names: list[str]) -> NonInferiority:
    n = len(set(names))
    return non_inferiority(
        loss,
        weight,
        names,
        margin=spec.margin,
        alpha=env.alpha,
        critical=small_sample(critical_value(_looks(spec), alpha=env.alpha), n - 1) if n > 1 else None,
        rng=env.rng(spec.name, "bound"),
    )


def _by_category(bounds: _Bounds, spec: CalibrationDriftSpec, env: Env) -> dict[str, NonInferiority]:
    return by_stratum(
        bounds.change,
        np.ones_like(bounds.weight),
        bounds.answered.clusters,
        [c.category for c in bounds.answered.choices],
        margin=spec.margin,
        alpha=env.alpha,
        rng=lambda name: env.rng(spec.name, "category", name),
    )


def _knowledge(bounds: _Bounds) -> Question:
    n = int((bounds.weight > 0).sum())
    if bounds.known is None:
        return Question(
            verdict=Verdict.INCONCLUSIVE,
            unit="nat/fact lost",
            message=f"the base knew none of {len(bounds.change)} facts better than chance; give facts that it knows",
        )
    return _claim(bounds.known, [], f"{n} facts that the base knew, by how well", bounds.effective)


def _claim(found: NonInferiority, harmed: list[str], what: str, n: float) -> Question:
    verdict, tail = judged(found, harmed, unit="nat", items="facts")
    if verdict is Verdict.PASS and (worth := _worth(found, n)) < FEWEST:
        verdict, tail = Verdict.INCONCLUSIVE, f"worth {worth:.0f} sure ones; give {FEWEST} or more"
    low, high = found.lower, found.upper
    return Question(
        verdict=verdict,
        effect=found.estimate,
        unit="nat/fact lost",
        interval=None if low is None or high is None else (low, high),
        null=f"margin {found.margin} nat/fact",
        message=f"log loss {found.estimate:+.3f} nat on {what}: {tail}",
    )


def _worth(found: NonInferiority, n: float) -> float:
    """Return how many facts that vary on their own a bound over so many is made of; a pass asks for 30."""
    return min(n, found.n_clusters)


class _Accuracy:
    """Facts lost and won."""

    def __init__(self, read: Answered, margin: float, level: float) -> None:
        self.cells, self.margin, self.n = read.flips(), margin, len(read.choices)
        self.independent = len(set(read.clusters)) == self.n
        lost, won = self.cells["lost"], self.cells["won"]
        self.p = mcnemar(lost, won)
        self.fall: Proportion = newcombe_paired(
            self.cells["both"], lost, won, self.cells["neither"], confidence=1 - 2 * level
        )

    def claim(self) -> dict[str, Question]:
        """Return the claim where these facts decide it, else none: log loss stands for it, by cluster too."""
        if not self.independent:
            return {}
        fall, verdict, tail = self.fall, None, ""
        if fall.low > self.margin:
            verdict, tail = Verdict.FAIL, f"surely more than {self.margin:.0%}"
        elif fall.high < self.margin and self.n >= FEWEST:
            verdict, tail = Verdict.PASS, f"surely less than {self.margin:.0%}"
        elif self.p <= _ALPHA and (fall.estimate or 0.0) >= self.margin:
            verdict, tail = Verdict.WARN, f"it surely fell, and perhaps by more than {self.margin:.0%}"
        if verdict is None:
            return {}
        question = Question(
            verdict=verdict,
            effect=fall.estimate,
            unit="of facts lost",
            interval=(fall.low, fall.high),
            p=self.p,
            null=f"exact McNemar; margin {self.margin:.0%}",
            message=f"{self.cells['lost']} facts lost and {self.cells['won']} won of {self.n}: {tail}",
        )
        return {"accuracy": question}

    def evidence(self) -> dict[str, Any]:
        """Return the counts, and how sure they are."""
        return {
            **self.cells,
            "fall": self.fall.estimate,
            "low": self.fall.low,
            "high": self.fall.high,
            "p_mcnemar": self.p,
            "margin": self.margin,
            "method": self.fall.method,
            "claimed": bool(self.claim()),
        }


def _evidence(spec: CalibrationDriftSpec, env: Env, bounds: _Bounds) -> dict[str, Any]:
    read, n = bounds.answered, len(bounds.change)
    sure = bounds.weight > 0
    flat = (option_logprobs(read.base), option_logprobs(read.finetuned))
    briers = [brier(x, read.right) for x in flat]
    rise = gain(briers[1] - briers[0], np.ones(n, dtype=np.int64), read.clusters, rng=env.rng(spec.name, "brier"))
    return {
        "loss": stratum_row(bounds.all) | {"base": bounds.losses[0], "finetuned": bounds.losses[1]},
        "loss_on_known": stratum_row(bounds.known) if bounds.known else None,
        "known": {"n": int(sure.sum()), "worth": bounds.effective, "weight": float(bounds.weight.sum()) / _WEIGHTS},
        "margin": spec.margin,
        "brier": {"base": float(briers[0].mean()), "finetuned": float(briers[1].mean())}
        | {"change": estimate_evidence(rise)},
        "slope": {
            "base": _slope(slope(read.base, read.right)),
            "finetuned": _slope(slope(read.finetuned, read.right)),
            "change": _slope(slope_change(read.base, read.finetuned, read.right)),
        },
        "curves": [_curve(name, x, read) for name, x in zip(("base", "fine-tune"), flat, strict=True)],
        "items": worst_and_best(bounds.change, read.row),
        **item_records({"calibration": _measured(spec, bounds)}, seed=env.seed),
        "counts": {"n_items": n, "n_tokens": read.n_tokens, "n_clusters": bounds.all.n_clusters},
        "n_to_decide": bounds.all.n_to_decide,
        "pack_sha256": None if spec.facts else facts_hash(),
        "dropped": distinct(spec.facts)[1],
        "smallest_decidable_effect": _smallest(bounds),
    }


def _measured(spec: CalibrationDriftSpec, bounds: _Bounds) -> Measured:
    items = [
        TextItem(c.prompt, "\n".join((c.answer, *c.options)), c.cluster or "", c.label or "")
        for c in bounds.answered.choices
    ]
    ones = np.ones(len(items), dtype=np.int64)
    return Measured(items, bounds.change, ones, "nat/fact lost", "lower", spec.margin, bounds.answered.row)


def _slope(found: Slope) -> dict[str, float | None]:
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def _smallest(bounds: _Bounds) -> float | None:
    """Return the loss that these facts would have told from the margin: half the width of the bounds."""
    low, high = bounds.all.lower, bounds.all.upper
    return None if low is None or high is None else (high - low) / 2


def _curve(name: str, logprobs: F64, read: Answered) -> dict[str, Any]:
    """Return how often the favoured option is right by how sure the model is of it."""
    sure, right = np.exp(logprobs.max(axis=1)), answered_right(logprobs, read.right)
    edges = np.linspace(0, 1, _BINS + 1)
    bins = np.clip(np.digitize(sure, edges) - 1, 0, _BINS - 1)
    used = [b for b in range(_BINS) if (bins == b).any()]
    shares = [clopper_pearson(int(right[bins == b].sum()), int((bins == b).sum())) for b in used]
    return {
        "name": name,
        "x": [float(sure[bins == b].mean()) for b in used],
        "x_label": "probability of the favoured option",
        "y": [s.estimate for s in shares],
        "low": [s.low for s in shares],
        "high": [s.high for s in shares],
        "unit": "of facts right",
        "minimum": None,
    }
