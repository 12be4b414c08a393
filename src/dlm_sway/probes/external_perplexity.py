"""`external_perplexity`: did the fine-tune make other text less probable?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.claims import Measured, extremes, item_records
from dlm_sway.probes.control_reading import Read, Reading
from dlm_sway.probes.harm import FEWEST, judged, looks, stratum_row
from dlm_sway.probes.inputs import Items, reading_order, subset
from dlm_sway.stats.equivalence import NonInferiority
from dlm_sway.stats.ranks import rank_test

LOOKS = (32, 48, 64, 96, 128)  # passages; the whole corpus is always the last look
NULL_CUT = 24
_GAIN: frozenset[Reducer] = frozenset({"gain"})


class ExternalPerplexitySpec(ProbeSpec):
    """Spec of `external_perplexity`.

    Attributes:
        passages: control texts, their `stratum` the register; the shipped corpus when none are given.
        margin: the largest loss that counts as no harm, nat per token.
        max_tokens: read at most so many tokens of a passage, its first ones.
        max_passages: read at most so many passages, the first in the order they are read in; all when not given.
        null_tokens: about how many tokens each null sees, for the figure shown beside; 0 for no such figure.
        read_on: whether a register in doubt is read on after the average is decided; off is faster and overlooks more.
    """

    kind: Literal["external_perplexity"] = "external_perplexity"
    passages: Items = ()
    margin: float = Field(default=0.05, gt=0)
    max_tokens: int = Field(default=128, ge=16)
    max_passages: int | None = Field(default=None, ge=1)
    null_tokens: int = Field(default=96, ge=0)
    read_on: bool = True


@register("external_perplexity")
class ExternalPerplexity(Probe[ExternalPerplexitySpec]):
    """Did the fine-tune make other text less probable?

    Asks: is the loss on general text, over all registers, inside the margin?
    Null: none is beaten; "no harm" is non-inferiority with a margin. The rotation null (N1) is shown beside.
    Statistic: loss in log-prob per token, sum(l_base - l_ft) / sum(tokens), by passage; nat/token.
    Passes when: its one-sided 95 % bound is under the margin (0.05), and no register is open. Fails when the whole
        interval is over the margin, or that of a register, corrected for their number. The corpus is read in looks of
        32, 48, 64, 96, 128 and all passages until decided; Pocock's constant pays for the looking. Then a register
        that lost more than the margin by its estimate is read on, twice as far each time, until it did not or has no
        more passages; one that did, and surely lost something, is open. Your own passages are read in a random order
        that takes from each register in turn, and under 30 never pass. Between two tokenizers losses are in bit/byte,
        and the margin in nat/token is taken at four bytes a token.
    Costs: 32 to 280 passages of at most `max_tokens` tokens for base and fine-tune, and n_draws views of about 100
        tokens.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = ExternalPerplexitySpec
    per_byte: ClassVar[bool] = True

    def plan(self, spec: ExternalPerplexitySpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Each round reads on to the next look until the bound is decided, then on in registers that are in doubt."""
        reading = _reading(spec, env)
        texts = reading.after(_parts(seen, env))
        if not texts:
            return ()
        asks = [Ask(texts, (FINETUNED,), _GAIN, format="raw", max_tokens=env.unit.positions(spec.max_tokens))]
        if not seen and spec.null_tokens and not env.null_refusal:
            some = subset(reading.passages, tokens=spec.null_tokens, cut=NULL_CUT, rng=env.rng(spec.name, "nulls"))
            asks.append(Ask(some, env.adapter_and_nulls(), _GAIN, format="raw", max_tokens=NULL_CUT))
        return tuple(asks)

    def measure(self, spec: ExternalPerplexitySpec, env: Env, seen: Seen) -> Found:
        """What was read of all registers alike, all that was read, and the nulls' losses beside it."""
        beside = seen[0][1].per_token("gain") if len(seen[0]) > 1 else None
        parts = _parts(seen, env)
        whole = Read(parts[: _reading(spec, env).looked(parts)])
        return Found(data={"whole": whole, "read": Read(parts), "beside": beside})

    def judge(self, spec: ExternalPerplexitySpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: no_harm."""
        del p  # a null is shown, never required to be beaten
        whole: Read = found.data["whole"]
        read: Read = found.data["read"]
        reading = _reading(spec, env)
        overall, registers = reading.decide(whole), reading.by_register(read)
        claim = _claim(overall, registers, reading.open_registers(read), len(whole.items), env)
        evidence = {
            "loss": {"estimate": overall.estimate, "lower": overall.lower, "upper": overall.upper},
            "margin": reading.margin,
            "method": overall.method,
            "n_items": len(whole.items),
            "n_tokens": int(whole.tokens.sum()),
            "n_clusters": overall.n_clusters,
            "n_to_decide": overall.n_to_decide,
            "registers": [
                {"register": name, **stratum_row(f), "n_items": read.registers.count(name)}
                for name, f in registers.items()
            ],
            "items": extremes(read.items, read.loss, read.tokens),
            **item_records({"no_harm": _measured(reading, whole, env)}, seed=env.seed),
            "null_beside": _beside(found.data["beside"]),
            "dropped": [],
        }
        score = None if claim.verdict is Verdict.INCONCLUSIVE else float(claim.verdict is Verdict.PASS)
        return result_of(spec, {"no_harm": claim}, headline="no_harm", score=score, evidence=evidence)


def _reading(spec: ExternalPerplexitySpec, env: Env) -> Reading:
    passages = _passages(spec, env)
    margin = env.unit.threshold(spec.margin)
    return Reading(passages, looks(len(passages), LOOKS), margin, env, spec.name, reads_on=spec.read_on)


def _passages(spec: ExternalPerplexitySpec, env: Env) -> tuple[TextItem, ...]:
    """Return what is read, in an order whose beginnings are balanced; the corpus is shipped in one."""
    if not spec.passages:
        every = tuple(TextItem("", p.text, p.id, p.id, p.register) for p in control_passages())
    else:
        every = reading_order(spec.passages, [p.stratum for p in spec.passages], rng=env.rng(spec.name, "order"))
    return every[: spec.max_passages]


def _parts(seen: Seen, env: Env) -> list[Scores]:
    return [env.unit.of(answers[0]) for answers in seen]


def _measured(reading: Reading, whole: Read, env: Env) -> Measured:
    return Measured(whole.items, whole.loss, whole.tokens, f"{env.unit.name} lost", "lower", reading.margin)


def _claim(
    overall: NonInferiority, registers: Mapping[str, NonInferiority], still_open: Mapping[str, float], n: int, env: Env
) -> Question:
    low, high = overall.lower, overall.upper
    harmed = [f"{name} ({f.estimate:+.3f})" for name, f in registers.items() if f.decision == "outside"]
    verdict, tail = judged(overall, harmed, unit="", items="passages")
    if verdict is Verdict.PASS and still_open:
        # That all kinds of text together lost less than the margin does not show it of each.
        names = ", ".join(f"{name} ({lost:+.3f})" for name, lost in still_open.items())
        verdict, tail = Verdict.INCONCLUSIVE, f"{tail}, but perhaps over it on: {names}; more such text would decide"
    if verdict is Verdict.PASS and overall.n_clusters < FEWEST:
        verdict, tail = Verdict.INCONCLUSIVE, f"so few do not show a rare large loss; give {FEWEST} or more"
    return Question(
        verdict=verdict,
        effect=overall.estimate,
        unit=f"{env.unit.name} lost",
        interval=None if low is None or high is None else (low, high),
        null=f"margin {overall.margin} {env.unit.name}",
        message=f"loss {overall.estimate:+.3f} {env.unit.name} on {n} control passages: {tail}",
    )


def _beside(gains: npt.NDArray[np.float64] | None) -> dict[str, Any] | None:
    """Return where the adapter's loss stands among those of rotations on a small subset."""
    if gains is None or gains.size < 2:  # noqa: PLR2004 (the adapter and at least one null)
        return None
    found = rank_test(float(-gains[0]), -gains[1:], scale="linear")
    return {
        "loss": found.statistic,
        "null_median_loss": found.null_median,
        "rank": found.rank,
        "n_draws": found.n_draws,
    }
