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
from dlm_sway.probes.harm import FEWEST, by_stratum, critical_value, judged, looks, stratum_row
from dlm_sway.probes.inputs import Items, clusters, reading_order, subset
from dlm_sway.stats.equivalence import NonInferiority, non_inferiority
from dlm_sway.stats.ranks import rank_test
from dlm_sway.stats.sequential import small_sample

LOOKS = (32, 48, 64, 96, 128)  # passages; the whole corpus is always the last look
NULL_CUT = 24
_GAIN: frozenset[Reducer] = frozenset({"gain"})


class ExternalPerplexitySpec(ProbeSpec):
    """Spec of `external_perplexity`.

    Attributes:
        passages: control texts, their `stratum` the register; the shipped corpus when none are given.
        margin: the largest loss that counts as no harm, nat per token.
        max_tokens: read at most so many tokens of a passage, its first ones.
        null_tokens: about how many tokens each null sees, for the figure shown beside; 0 for no such figure.
    """

    kind: Literal["external_perplexity"] = "external_perplexity"
    passages: Items = ()
    margin: float = Field(default=0.05, gt=0)
    max_tokens: int = Field(default=128, ge=16)
    null_tokens: int = Field(default=96, ge=0)


@register("external_perplexity")
class ExternalPerplexity(Probe[ExternalPerplexitySpec]):
    """Did the fine-tune make other text less probable?

    Asks: is the loss on general text, over all registers, inside the margin?
    Null: none is beaten; "no harm" is non-inferiority with a margin. The rotation null (N1) is shown beside.
    Statistic: loss in log-prob per token, sum(l_base - l_ft) / sum(tokens), by passage; nat/token.
    Passes when: its one-sided 95 % bound is under the margin (0.05), and no register's own bound, corrected for their
        number, lies over it. Fails when the whole interval is over the margin. The corpus is read in looks of 32, 48,
        64, 96, 128 and all passages until decided; Pocock's constant pays for the looking. Your own passages are read
        in a random order that takes from each register in turn, and under 30 never pass. Between two tokenizers
        losses are in bit/byte, and the margin in nat/token is taken at four bytes a token.
    Costs: 32 to 280 passages of at most `max_tokens` tokens for base and fine-tune, and n_draws views of about 100
        tokens.
    """

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = ExternalPerplexitySpec
    per_byte: ClassVar[bool] = True

    def plan(self, spec: ExternalPerplexitySpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Each round reads on to the next look, until the bound is decided."""
        passages, ends = _passages(spec, env), _looks(spec)
        if seen and (len(seen) == len(ends) or _is_decided(_decide(spec, env, seen))):
            return ()
        begin = ends[len(seen) - 1] if seen else 0
        most = spec.max_tokens * env.unit.length
        asks = [Ask(passages[begin : ends[len(seen)]], (FINETUNED,), _GAIN, format="raw", max_tokens=most)]
        if not seen and spec.null_tokens and not env.null_refusal:
            some = subset(passages, tokens=spec.null_tokens, cut=NULL_CUT, rng=env.rng(spec.name, "nulls"))
            asks.append(Ask(some, env.adapter_and_nulls(), _GAIN, format="raw", max_tokens=NULL_CUT))
        return tuple(asks)

    def measure(self, spec: ExternalPerplexitySpec, env: Env, seen: Seen) -> Found:
        """The bound at the last look, by register, and the nulls' losses beside it."""
        beside = seen[0][1].per_token("gain") if len(seen[0]) > 1 else None
        return Found(data={"overall": _decide(spec, env, seen), "read": _read(seen, env), "beside": beside})

    def judge(self, spec: ExternalPerplexitySpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: no_harm."""
        del p  # a null is shown, never required to be beaten
        overall: NonInferiority = found.data["overall"]
        read: _Read = found.data["read"]
        registers = _by_register(read, spec, env)
        worst = [r for r in registers if r["decision"] == "outside"]
        claim = _claim(overall, worst, read, env)
        evidence = {
            "loss": {"estimate": overall.estimate, "lower": overall.lower, "upper": overall.upper},
            "margin": env.unit.threshold(spec.margin),
            "method": overall.method,
            "n_items": len(read.items),
            "n_tokens": int(read.tokens.sum()),
            "n_clusters": overall.n_clusters,
            "n_to_decide": overall.n_to_decide,
            "registers": registers,
            "items": extremes(read.items, read.loss, read.tokens),
            **item_records({"no_harm": _measured(spec, env, read)}, seed=env.seed),
            "null_beside": _beside(found.data["beside"]),
            "dropped": [],
        }
        score = None if claim.verdict is Verdict.INCONCLUSIVE else float(claim.verdict is Verdict.PASS)
        return result_of(spec, {"no_harm": claim}, headline="no_harm", score=score, evidence=evidence)


class _Read:
    """All passages read so far."""

    def __init__(self, parts: list[Scores]) -> None:
        self.items = tuple(i for s in parts for i in s.items)
        self.loss: npt.NDArray[np.float64] = np.concatenate([-s.item_sums("gain")[0] for s in parts])
        self.tokens = np.concatenate([s.tokens for s in parts])


def _measured(spec: ExternalPerplexitySpec, env: Env, read: _Read) -> Measured:
    return Measured(
        read.items, read.loss, read.tokens, f"{env.unit.name} lost", "lower", env.unit.threshold(spec.margin)
    )


def _read(seen: Seen, env: Env) -> _Read:
    return _Read([env.unit.of(answers[0]) for answers in seen])


def _passages(spec: ExternalPerplexitySpec, env: Env) -> tuple[TextItem, ...]:
    """Return what is read, in an order whose beginnings are balanced; the corpus is shipped in one."""
    if not spec.passages:
        return tuple(TextItem("", p.text, p.id, p.id, p.register) for p in control_passages())
    return reading_order(spec.passages, [p.stratum for p in spec.passages], rng=env.rng(spec.name, "order"))


def _looks(spec: ExternalPerplexitySpec) -> tuple[int, ...]:
    return looks(len(spec.passages or control_passages()), LOOKS)


def _is_decided(overall: NonInferiority) -> bool:
    """Return whether reading on can change no verdict."""
    return overall.decision == "outside" or (overall.decision == "within" and overall.n_clusters >= FEWEST)


def _decide(spec: ExternalPerplexitySpec, env: Env, seen: Seen) -> NonInferiority:
    """Return the bound over what was read, at the level that Pocock's constant leaves to each look.

    Two one-sided questions are asked at every look (is the loss under the margin, is it over it); each keeps alpha.
    """
    read = _read(seen, env)
    z = critical_value(_looks(spec), alpha=env.alpha)
    n = len(set(clusters(read.items)))
    critical = small_sample(z, n - 1) if n > 1 else None
    return non_inferiority(
        read.loss,
        read.tokens,
        clusters(read.items),
        margin=env.unit.threshold(spec.margin),
        alpha=env.alpha,
        critical=critical,
        rng=env.rng(spec.name, "bound"),
    )


def _by_register(read: _Read, spec: ExternalPerplexitySpec, env: Env) -> list[dict[str, Any]]:
    """Return the loss of each register with bounds that hold for all of them together."""
    names = [i.stratum or "all" for i in read.items]
    found = by_stratum(
        read.loss,
        read.tokens,
        clusters(read.items),
        names,
        margin=env.unit.threshold(spec.margin),
        alpha=env.alpha,
        rng=lambda name: env.rng(spec.name, "register", name),
    )
    return [{"register": name, **stratum_row(f), "n_items": names.count(name)} for name, f in found.items()]


def _claim(overall: NonInferiority, worst: list[dict[str, Any]], read: _Read, env: Env) -> Question:
    low, high = overall.lower, overall.upper
    harmed = [f"{r['register']} ({r['loss']:+.3f})" for r in worst]
    head = f"loss {overall.estimate:+.3f} {env.unit.name} on {len(read.items)} control passages"
    verdict, tail = judged(overall, harmed, unit="", items="passages")
    if verdict is Verdict.PASS and overall.n_clusters < FEWEST:
        verdict, tail = Verdict.INCONCLUSIVE, f"so few do not show a rare large loss; give {FEWEST} or more"
    return Question(
        verdict=verdict,
        effect=overall.estimate,
        unit=f"{env.unit.name} lost",
        interval=None if low is None or high is None else (low, high),
        null=f"margin {overall.margin} {env.unit.name}",
        message=f"{head}: {tail}",
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
