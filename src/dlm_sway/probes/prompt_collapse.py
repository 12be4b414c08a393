"""`prompt_collapse`: does what the fine-tune changed hold when other text stands before the prompt?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from dlm_sway.backends.base import Format, TextCodec
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.delta_kl import beyond_rounding, item_means
from dlm_sway.probes.distinct import distinct
from dlm_sway.probes.fade import Fading
from dlm_sway.probes.filler import Ids, behind, encoded, fillers, with_tail
from dlm_sway.probes.inputs import Items, shown
from dlm_sway.stats.decay import decay

SPAN: Final = 16
"""Positions scored at the end of a prompt; one alone is too noisy to compare."""
SHORTEST: Final = 8
"""Tokens of the shortest context; less is a separator and a word."""
_SHORT: Final = "too short to be cut into a beginning and an end"


class PromptCollapseSpec(ProbeSpec):
    """Spec of `prompt_collapse`.

    Attributes:
        prompts: texts, of which the end is scored, or prompts with completions, of which the beginning is; the
            built-in 32 when none are given.
        context_lengths: tokens of other text before a prompt; 0 is added, and what the context window has no room for
            is cut to what it has.
        divergence: between base and fine-tune; `kl` is KL(base || fine-tune).
        min_half_life: the shortest half-life worth a pass, tokens.
        fillers: how many different texts stand before prompts, in turn.
    """

    kind: Literal["prompt_collapse"] = "prompt_collapse"
    prompts: Items = ()
    context_lengths: tuple[int, ...] = Field(default=(0, 256, 512, 1024), min_length=1)
    divergence: Literal["kl", "js", "tv"] = "kl"
    min_half_life: float = Field(default=512, gt=0)
    fillers: int = Field(default=4, ge=1, le=16)

    @field_validator("context_lengths")
    @classmethod
    def _some_context(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(n != 0 and n < SHORTEST for n in value) or max(value) == 0:
            raise ValueError(f"give 0 and lengths of at least {SHORTEST} tokens")
        return tuple(sorted({0, *value}))


@register("prompt_collapse")
class PromptCollapse(Probe[PromptCollapseSpec]):
    """Does the fine-tune's effect hold when a long context stands before the prompt?

    Asks: of the effect at the end of a prompt, how much is left when natural text of L tokens stands before it?
    Null: none is drawn; the same prompts without the text before them are the comparison.
    Statistic: mean divergence to the base over the last 16 tokens of the prompt (of a prompt with a completion: the
        first 16 of that), summed over prompts, relative to L = 0; the half-life of a * 2^(-L / h) by non-linear least
        squares. Intervals over prompts, for the texts that stood before them.
    Passes when: at the longest L, of at least 512 tokens, the lower bound of what is left is at least 0.5, or that of
        the half-life is at least 512 tokens. Fails when the half-life surely is under 512 tokens, or surely less than
        half is left at the longest L up to 512. Inconclusive where nearly all of the effect is in fewer than 3 prompts.
        An effect that does not fall is the best result.
    Costs: two views of every context, read once for all prompts behind it, and of every prompt at every length.
    """

    category: ClassVar[Category] = "adherence"
    spec_type: ClassVar[type[ProbeSpec]] = PromptCollapseSpec

    def plan(self, spec: PromptCollapseSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: every prompt behind every length of context, under the fine-tune."""
        if seen:
            return ()
        setup = _set_up(spec, env)
        if len(setup.lengths) < 2 or not setup.prompts:  # noqa: PLR2004 (nothing to compare)
            return ()
        rows = [[_row(p, n, setup, env) for p in setup.prompts] for n in setup.lengths]
        return tuple(
            Ask(
                tuple(row[i] for row in rows),
                (FINETUNED,),
                frozenset({spec.divergence}),
                format=p.format,
                max_tokens=SPAN,
            )
            for i, p in enumerate(setup.prompts)
        )

    def measure(self, spec: PromptCollapseSpec, env: Env, seen: Seen) -> Found:
        """What is left of the effect at each length."""
        setup = _set_up(spec, env)
        if not seen:
            return Found(data={"setup": setup})
        answers: tuple[Scores, ...] = seen[0]
        table = np.stack([np.maximum(item_means(s, spec.divergence)[0], 0.0) for s in answers], axis=1)  # [n_L, n]
        data: dict[str, Any] = {"setup": setup, "table": table, "n_tokens": int(sum(s.tokens.sum() for s in answers))}
        if table[0].mean() > beyond_rounding(spec.divergence, env.floor):
            data["decay"] = decay(setup.lengths, _by_cluster(table, setup.prompts))
        return Found(data=data)

    def judge(self, spec: PromptCollapseSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: holds."""
        del p  # no null is drawn
        setup: _Setup = found.data["setup"]
        evidence: dict[str, Any] = {
            "divergence": spec.divergence,
            "context_lengths": list(setup.lengths),
            "capped": setup.capped,
            "dropped": setup.dropped,
        }
        if "decay" not in found.data:
            claim = Question(verdict=Verdict.INCONCLUSIVE, message=_nothing_to_compare(setup, found, spec, env))
            return result_of(spec, {"holds": claim}, headline="holds", score=None, evidence=evidence)
        at, farther = f"behind {setup.lengths[-1]:,} tokens", _farther(spec, setup)
        fading = Fading(found.data["decay"], "tokens", spec.min_half_life, at, "prompts", farther)
        claim = fading.question()
        return result_of(
            spec,
            {"holds": claim},
            headline="holds",
            score=fading.score(claim),
            evidence={**evidence, **fading.evidence(), **_evidence(found, setup)},
        )


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt as it is scored.

    Attributes:
        item: what stands before the scored part, and that part.
        format: how it is rendered: a text that was cut in two is no conversation.
        filler: which text stands before it.
    """

    item: TextItem
    format: Format
    filler: int


@dataclass(frozen=True, slots=True)
class _Setup:
    """What is compared; follows from spec, seed and tokenizer."""

    prompts: tuple[_Prompt, ...]
    lengths: tuple[int, ...]
    texts: tuple[Ids, ...]
    capped: dict[str, Any] | None
    dropped: list[dict[str, str]]


def _codec(env: Env) -> TextCodec:
    if env.codec is None:
        raise CannotRunError("there is no tokenizer to count tokens with", remedy="run it with a model")
    return env.codec


def _set_up(spec: PromptCollapseSpec, env: Env) -> _Setup:
    codec = _codec(env)
    given = spec.prompts or tuple(TextItem("", p, str(i), f"prompt {i + 1}") for i, p in enumerate(GENERAL_PROMPTS))
    items, dropped = distinct(given, lambda i: f"{i.prompt}\n{i.completion}\n{i.messages or ''}")
    texts = fillers(spec.fillers, codec, rng=env.rng(spec.name, "fillers"))
    prompts: list[_Prompt] = []
    needs: list[int] = []
    for item in items:
        whole = bool(item.prompt or item.messages)
        cut = item if whole else with_tail(item, codec, span=SPAN)
        why = _SHORT if cut is None else None
        if cut is not None:
            form = env.format if whole else "raw"
            pair = encoded(cut, codec, form)
            need = pair.start + min(SPAN, pair.n_scored)
            why = "takes more than half of the context window" if need > codec.max_length // 2 else None
        if cut is None or why:
            dropped.append({"label": shown(item.label), "why": why or _SHORT})
            continue
        prompts.append(_Prompt(cut, form, len(prompts) % spec.fillers))
        needs.append(need)
    lengths, capped = _lengths(spec, codec, texts, max(needs, default=0))
    return _Setup(tuple(prompts), lengths, texts, capped, dropped)


def _lengths(
    spec: PromptCollapseSpec, codec: TextCodec, texts: Sequence[Ids], need: int
) -> tuple[tuple[int, ...], dict[str, Any] | None]:
    """Return the lengths that can be read, and why they are not those asked for."""
    room, text = codec.max_length - need, min(t.size for t in texts) - SPAN
    most, longest = max(0, min(room, text)), spec.context_lengths[-1]
    lengths = tuple(sorted({n for n in (min(n, most) for n in spec.context_lengths) if n == 0 or n >= SHORTEST}))
    if longest <= most:
        return lengths, None
    why = f"the context window holds {codec.max_length} tokens and the longest prompt takes {need}"
    if text < room:
        why = f"the control corpus has {text} tokens for each of {len(texts)} contexts; ask for fewer `fillers`"
    return lengths, {"asked": longest, "read": most, "why": why}


def _farther(spec: PromptCollapseSpec, setup: _Setup) -> str:
    if setup.capped is None:
        return f"give `context_lengths` up to {math.ceil(spec.min_half_life):,}"
    return f"{setup.capped['why']}, so ask for a `min_half_life` of at most {setup.lengths[-1]:,}"


def _row(prompt: _Prompt, length: int, setup: _Setup, env: Env) -> TextItem:
    return behind(prompt.item, setup.texts[prompt.filler], length, _codec(env), prompt.format)


def _by_cluster(table: npt.NDArray[np.float64], prompts: Sequence[_Prompt]) -> npt.NDArray[np.float64]:
    """Return float64[n_L, n_clusters]: the mean over the prompts of each cluster."""
    names = np.array([p.item.cluster for p in prompts])
    return np.stack([table[:, names == name].mean(axis=1) for name in dict.fromkeys(names)], axis=1)


def _nothing_to_compare(setup: _Setup, found: Found, spec: PromptCollapseSpec, env: Env) -> str:
    if not setup.prompts:
        return "no prompt can be put behind a context; give longer prompts"
    if "table" not in found.data:
        return f"no context fits before the prompts: {(setup.capped or {}).get('why')}; give shorter prompts"
    mean, rounding = float(found.data["table"][0].mean()), beyond_rounding(spec.divergence, env.floor)
    return (
        f"no effect that could fall: {mean:.2g} without a context, where numerics explain {rounding:.2g}; "
        "give prompts on which the fine-tune differs"
    )


def _evidence(found: Found, setup: _Setup) -> dict[str, Any]:
    table: npt.NDArray[np.float64] = found.data["table"]
    fall = table[-1] - table[0]

    def row(i: int) -> dict[str, Any]:
        item = setup.prompts[i].item
        return {
            "label": item.label,
            "text": shown(item.completion),
            "without": float(table[0, i]),
            "behind": float(table[-1, i]),
        }

    return {
        "counts": {
            "n_items": table.shape[1],
            "n_tokens": found.data["n_tokens"],
            "n_clusters": found.data["decay"].n_units,
        },
        "effect": table.mean(axis=1).tolist(),
        "left_by_filler": _by_filler(table, setup),
        "items": worst_and_best(fall, row),
    }


def _by_filler(table: npt.NDArray[np.float64], setup: _Setup) -> list[float | None]:
    """Return what is left at the longest length behind each of the texts; one that no effect stood behind has None."""
    which = np.array([p.filler for p in setup.prompts])
    sums = [table[:, which == f].sum(axis=1) for f in range(len(setup.texts))]
    return [float(s[-1] / s[0]) if s[0] > 0 else None for s in sums]
