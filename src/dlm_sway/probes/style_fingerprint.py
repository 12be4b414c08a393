"""`style_fingerprint`: does the fine-tune write more like the reference text than the base does?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Write, Written
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import FEWEST, surely_over, worst_and_best
from dlm_sway.probes.claims import estimate_evidence, interval_of, power_line
from dlm_sway.probes.distinct import distinct
from dlm_sway.probes.inputs import shown
from dlm_sway.probes.style_features import F64, NAMES, READABILITY_NAMES, measurer, resolution, windows
from dlm_sway.probes.style_shift import Shift, differ, shift
from dlm_sway.stats.jackknife import JackknifedRatio, growth_to_decide
from dlm_sway.stats.paired import Estimate

FEWEST_PIECES: Final = 10
"""Pieces of the reference from which on the interval holds what it promises (simulated)."""
_SENSIBLE: Final = 1000.0
"""Times as much as there is: more than anybody could be told to collect."""


def _texts(raw: Any) -> Any:
    return (raw,) if isinstance(raw, str) else raw


class StyleFingerprintSpec(ProbeSpec):
    """Spec of `style_fingerprint`.

    Attributes:
        reference: text in the style that was meant, or several; one that is given again adds nothing.
        prompts: what is to be continued; the built-in 32 when none are given.
        samples: texts drawn for each prompt from each model.
        max_new_tokens: length of a text.
        temperature: of the draws; 0 for one greedy text.
        top_p: draw from the smallest set of tokens that holds this much probability.
        words: length of the pieces that are compared.
        min_along: the smallest share of the way to the reference worth a pass.
        max_aside: moves aside by more than this, in units of that way, are a warning.
        readability: whether scores of readability count too; needs textstat.
    """

    kind: Literal["style_fingerprint"] = "style_fingerprint"
    reference: Annotated[tuple[str, ...], BeforeValidator(_texts)] = Field(min_length=1)
    prompts: tuple[str, ...] = ()
    samples: int = Field(default=2, ge=1)
    max_new_tokens: int = Field(default=96, ge=8)
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    words: int = Field(default=40, ge=10)
    min_along: float = Field(default=0.25, gt=0)
    max_aside: float = Field(default=1.0, gt=0)
    readability: bool = False

    @field_validator("prompts")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))  # the same prompt again would be the same unit again; `samples` draws more


@register("style_fingerprint")
class StyleFingerprint(Probe[StyleFingerprintSpec]):
    """Does the fine-tune write more like the reference text than the base does, and not unlike both?

    Asks: of the way from the base's style to the reference's, what share did the fine-tune go, and how far aside?
    Null: none is drawn; a move of 0 is "writes as the base does". Whether the reference differs from the base at all
        is tested by permuting labels of pieces (N4).
    Statistic: standardised features of pieces of 40 words (sentence and word length, type-token ratio, punctuation,
        function words, optional readability): projection of (ft - base) on (reference - base), by prompt, the way
        taken from the base's other prompts; Fieller's interval by jackknives over prompts and over pieces of the
        reference. The rest at right angles, in the same unit.
    Passes when: the lower bound of the projection is at least 0.25. Fails when the whole interval is under it. Warns
        when the rest is longer than the way itself. Prompts with too little text from either model are counted apart;
        a reference of fewer than 10 pieces decides nothing.
    Costs: two texts of at most 96 tokens a prompt from each model.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = StyleFingerprintSpec
    needs_model: ClassVar[bool | None] = True  # its plan asks nothing where the reference is too short

    def plan(self, spec: StyleFingerprintSpec, env: Env, seen: Seen) -> tuple[Write, ...]:
        """One round: the samples of every prompt."""
        if seen:
            return ()
        measurer(readability=spec.readability)  # what is missing is said before anything is written
        if len(_reference(spec)) < FEWEST_PIECES:
            return ()
        return (
            Write(
                tuple(prompt for prompt in _prompts(spec) for _ in range(_samples(spec))),
                (BASE, FINETUNED),
                spec.max_new_tokens,
                temperature=spec.temperature,
                top_p=spec.top_p,
                seed=env.seed,
                format=env.format,
            ),
        )

    def measure(self, spec: StyleFingerprintSpec, env: Env, seen: Seen) -> Found:
        """Features of every prompt, and the shift."""
        if not seen:
            return Found(data={"units": [], "seen": None})
        written: Written = seen[0][0]
        units = _units(spec, written)
        kept = [u for u in units if u.dropped is None]
        data: dict[str, Any] = {"units": units, "seen": written}
        if len(kept) >= FEWEST:
            data |= _moved(spec, env, kept)
        return Found(data=data)

    def judge(self, spec: StyleFingerprintSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims: toward the reference, and not aside."""
        del p  # no null is drawn
        units: list[_Unit] = found.data["units"]
        moved: Shift | None = found.data.get("shift")
        along: Estimate | None = found.data.get("along")
        toward = _toward(spec, env, found.data)
        claims = {"toward": toward}
        if moved is not None and moved.aside is not None:
            claims["aside"] = _aside(moved.aside, spec)
        score = None
        if toward.verdict is not Verdict.INCONCLUSIVE:
            score = float(np.clip(toward.effect or 0.0, 0.0, 1.0)) if toward.verdict is Verdict.PASS else 0.0
        evidence = _evidence(spec, units, found.data["seen"])
        if moved is not None:
            evidence |= {
                "distance_base_reference_sd": moved.distance,
                "p_reference_is_the_base": found.data["p_same"],
                "aside": moved.aside,
                "features": _table(moved.features, spec),
            }
        if along is not None and moved is not None and moved.along is not None and moved.share is not None:
            kept = [u for u in units if u.dropped is None]
            evidence |= {
                "along": estimate_evidence(along),
                "se_by": dict(zip(("prompts", "reference"), moved.share.se_by_sample, strict=True)),
                "smallest_decidable_effect": power_line(along, minimum=spec.min_along, surely=True),
                "items": worst_and_best(moved.along, lambda i: kept[i].row()),
            }
        return result_of(spec, claims, headline="toward", score=score, evidence=evidence)


def _prompts(spec: StyleFingerprintSpec) -> tuple[str, ...]:
    return spec.prompts or GENERAL_PROMPTS


def _samples(spec: StyleFingerprintSpec) -> int:
    return spec.samples if spec.temperature > 0 else 1  # greedy texts of one prompt are one text


def _reference(spec: StyleFingerprintSpec) -> list[str]:
    # On end, as the models' answers are read: texts shorter than a piece would otherwise all be thrown away.
    return windows("\n".join(distinct(spec.reference, str)[0]), spec.words)


@dataclass(frozen=True, slots=True)
class _Unit:
    """One prompt: what each model wrote, all samples together, and its pieces."""

    prompt: str
    texts: tuple[str, str]
    pieces: tuple[list[str], list[str]]
    dropped: str | None

    def row(self) -> dict[str, Any]:
        """Return what a reader is shown."""
        return {
            "label": shown(self.prompt),
            "base": shown(self.texts[0]),
            "finetuned": shown(self.texts[1]),
        }


def _units(spec: StyleFingerprintSpec, written: Written) -> list[_Unit]:
    """Return a unit a prompt; its samples are read on end, so that short answers make pieces too."""
    k, units = _samples(spec), []
    for i, prompt in enumerate(_prompts(spec)):
        base, finetuned = ("\n".join(row[i * k : (i + 1) * k]) for row in written.texts)
        pieces = windows(base, spec.words), windows(finetuned, spec.words)
        units.append(_Unit(prompt, (base, finetuned), pieces, _dropped((base, finetuned), pieces, spec.words)))
    return units


def _dropped(texts: tuple[str, str], pieces: tuple[list[str], list[str]], words: int) -> str | None:
    for who, text, some in zip(("base", "fine-tune"), texts, pieces, strict=True):
        if not text.strip():
            return f"the {who} writes nothing"
        if not some:
            return f"the {who} writes fewer than {words} words"
    return None


def _moved(spec: StyleFingerprintSpec, env: Env, kept: list[_Unit]) -> dict[str, Any]:
    measure = measurer(readability=spec.readability)
    smallest = resolution(spec.words, readability=spec.readability)
    reference = measure(_reference(spec))
    base, finetuned = ([measure(u.pieces[side]) for u in kept] for side in (0, 1))
    moved = shift(reference, _means(base), _means(finetuned), smallest_sd=smallest, spread=np.concatenate(base))
    # One piece a prompt, as independent of each other as pieces of the reference are.
    first = np.stack([rows[0] for rows in base])
    p_same = differ(reference, first, smallest_sd=smallest, rng=env.rng(spec.name, "labels"))
    found: dict[str, Any] = {"shift": moved, "p_same": p_same}
    if moved.share is not None:
        found["along"] = _estimate(moved.share, n_prompts=len(kept))
    return found


def _estimate(share: JackknifedRatio, *, n_prompts: int) -> Estimate:
    return Estimate(
        estimate=share.estimate or 0.0,
        low=share.low,
        high=share.high,
        n_items=n_prompts,
        n_clusters=n_prompts,
        n_tokens=n_prompts,
        se=share.se,
        method=f"{share.method}; t test",
        p=share.p,
    )


def _means(rows: list[F64]) -> F64:
    return np.stack([r.mean(axis=0) for r in rows])


def _toward(spec: StyleFingerprintSpec, env: Env, data: Mapping[str, Any]) -> Question:
    along: Estimate | None = data.get("along")
    units: list[_Unit] = data["units"]
    dropped = [u.dropped for u in units if u.dropped]
    null = f"jackknives of prompts and of the reference, minimum {spec.min_along} of the way"
    why = None
    if not units:
        least = FEWEST_PIECES * spec.words
        why = f"the reference has {len(_reference(spec))} pieces of {spec.words} words; give at least {least} words"
    elif len(units) - len(dropped) < FEWEST:
        reasons = ", ".join(f"{dropped.count(r)} where {r}" for r in dict.fromkeys(dropped))
        why = f"{len(units) - len(dropped)} of {len(units)} prompts have text to compare ({reasons or 'all have'})"
        why += f"; give at least {FEWEST}, or raise max_new_tokens or samples"
    elif along is None or data["p_same"] > env.alpha:
        p = f"p {data['p_same']:.2g}"
        why = f"the reference is not told from what the base writes ({p}); give more of it, or of another style"
    if why is not None or along is None:
        return Question(verdict=Verdict.INCONCLUSIVE, unit="of the way", null=null, message=why or "")
    verdict = surely_over(along, spec.min_along)
    tail = {
        Verdict.PASS: "the fine-tune took on the style",
        Verdict.FAIL: f"surely under {spec.min_along}: it still writes as the base does",
    }.get(verdict) or _what_would_decide(data["shift"].share, spec, n_prompts=along.n_clusters)
    apart = f", {len(dropped)} prompts counted apart" if dropped else ""
    return Question(
        verdict=verdict,
        effect=along.estimate,
        unit="of the way",
        interval=interval_of(along),
        null=null,
        message=f"went {along.estimate:.0%} of the way from the base's style to the reference's{apart}: {tail}",
    )


def _what_would_decide(share: JackknifedRatio, spec: StyleFingerprintSpec, *, n_prompts: int) -> str:
    """Return what would decide: more prompts or more of the reference, whichever is less, else more of both."""
    n_pieces = len(_reference(spec))
    so_far = f"{n_prompts} prompts and {n_pieces} pieces of the reference do not decide"
    (by_prompts, by_pieces), by_both = growth_to_decide(share, spec.min_along)
    if by_both is None or by_both > _SENSIBLE:
        return f"{so_far}: it lies at the minimum"

    def prompts(growth: float) -> str:
        return f"{max(n_prompts + 1, int(np.ceil(growth * n_prompts)))} prompts"

    def words(growth: float) -> str:
        return f"{max(n_pieces + 1, int(np.ceil(growth * n_pieces))) * spec.words:,} words of it"

    ways = [(growth, say(growth)) for growth, say in ((by_prompts, prompts), (by_pieces, words)) if growth is not None]
    least = min(ways, default=(by_both, f"{prompts(by_both)} and {words(by_both)}"))
    return f"{so_far}; about {least[1]} would"


def _aside(aside: float, spec: StyleFingerprintSpec) -> Question:
    large = aside > spec.max_aside
    tail = "it writes unlike both" if large else "no more than the way itself"
    return Question(
        verdict=Verdict.WARN if large else Verdict.PASS,
        effect=aside,
        unit="of the way",
        null=f"at most {spec.max_aside} of the way",
        message=f"moved {aside:.2f} of the way aside, in features that do not lead to the reference: {tail}",
    )


def _table(rows: F64, spec: StyleFingerprintSpec) -> dict[str, dict[str, float]]:
    names = (*NAMES, *(READABILITY_NAMES if spec.readability else ()))
    return {name: {"reference": float(r), "finetuned": float(f)} for name, (r, _, f) in zip(names, rows, strict=True)}


def _evidence(spec: StyleFingerprintSpec, units: list[_Unit], written: Written | None) -> dict[str, Any]:
    kept = [u for u in units if u.dropped is None]
    return {
        "n_items": len(kept),
        "n_clusters": len(kept),
        "n_tokens": int(written.n_tokens.sum()) if written else 0,
        "n_reference_pieces": len(_reference(spec)),
        "words_a_piece": spec.words,
        "empty_texts": [sum(not t.strip() for t in row) for row in written.texts] if written else [0, 0],
        "dropped": [
            *({"label": row["label"], "reason": row["why"]} for row in distinct(spec.reference, str)[1]),
            *({"label": shown(u.prompt), "reason": u.dropped} for u in units if u.dropped),
        ],
    }
