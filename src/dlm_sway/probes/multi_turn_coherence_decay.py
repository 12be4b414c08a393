"""`multi_turn_coherence_decay`: does the fine-tune's effect hold over the turns of a conversation?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import BASE, FINETUNED, View
from dlm_sway.engine.ask import Ask, Scores, TextItem, Write, Written
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.delta_kl import beyond_rounding, item_means
from dlm_sway.probes.dialogue import FOLLOW_UPS, Dialogue, fits
from dlm_sway.probes.distinct import distinct
from dlm_sway.probes.fade import Fading
from dlm_sway.probes.inputs import shown
from dlm_sway.stats.decay import FEWEST_POINTS, decay

SPAN: Final = 16
"""Positions scored at the beginning of a reply."""
_MOST_TURNS: Final = 32
_NO_TEMPLATE: Final = (
    "the tokenizer has no chat template, so turns cannot be rendered; use a model whose tokenizer has one"
)


class MultiTurnSpec(ProbeSpec):
    """Spec of `multi_turn_coherence_decay`.

    Attributes:
        prompts: first turns of the user.
        max_turns: turns that are scored.
        follow_ups: later turns of the user, in turn; five that fit any conversation when none are given.
        max_new_tokens: length of a reply in the history.
        divergence: between base and fine-tune; `kl` is KL(base || fine-tune).
        min_half_life: the shortest half-life worth a pass, turns.
    """

    kind: Literal["multi_turn_coherence_decay"] = "multi_turn_coherence_decay"
    prompts: tuple[str, ...] = Field(min_length=1)
    max_turns: int = Field(default=4, ge=FEWEST_POINTS, le=_MOST_TURNS)
    follow_ups: tuple[str, ...] = FOLLOW_UPS
    max_new_tokens: int = Field(default=48, ge=1)
    divergence: Literal["kl", "js", "tv"] = "kl"
    min_half_life: float = Field(default=2, gt=0)

    @field_validator("prompts", "follow_ups")
    @classmethod
    def _some_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(text.strip() for text in value):
            raise ValueError("a turn is empty")
        return value


@register("multi_turn_coherence_decay")
class MultiTurnCoherenceDecay(Probe[MultiTurnSpec]):
    """Does the fine-tune's effect hold over the turns of a conversation?

    Asks: of the effect on the first reply, how much is left on later ones? Once in conversations that the fine-tune
        wrote, and once in those that the base wrote, so that what its own words do is told from what length does.
    Null: none is drawn; the first turns of the same conversations are the comparison.
    Statistic: mean divergence to the base over the first 16 tokens of each reply, both models behind the same history,
        summed over conversations, relative to the first turn; the half-life of a * 2^(-t / h) over at least 3 turns by
        non-linear least squares. Intervals over conversations.
    Passes when: in both kinds of conversation the lower bound of what is left at the last turn, at least 2 turns from
        the first, is at least 0.5, or that of the half-life is at least 2 turns. Fails when in one of them the
        half-life surely is under 2 turns, or surely less than half is left 2 turns from the first. Inconclusive where
        nearly all of the effect is in fewer than 3 conversations. An effect that does not fall is the best result.
    Costs: a reply of at most 48 tokens a prompt, turn and model, and a pass of each history under two views.
    """

    category: ClassVar[Category] = "adherence"
    spec_type: ClassVar[type[ProbeSpec]] = MultiTurnSpec

    def plan(self, spec: MultiTurnSpec, env: Env, seen: Seen) -> tuple[Ask | Write, ...]:
        """A round of replies a turn, by the fine-tune and by the base; then one that scores them all."""
        if not env.chat or len(seen) > spec.max_turns:
            return ()
        sides = _sides(spec, env, seen)
        if len(seen) < spec.max_turns:
            writes = [_write(side, len(seen), spec) for side in sides]
            if all(w.prompts for w in writes):
                return tuple(writes)
            return ()
        return tuple(_ask(side, spec) for side in sides) if all(side.whole(spec) for side in sides) else ()

    def measure(self, spec: MultiTurnSpec, env: Env, seen: Seen) -> Found:
        """What is left of the effect at each turn, in both kinds of conversation."""
        if not env.chat:
            return Found()
        sides = _sides(spec, env, seen)
        answers: Sequence[Scores | None] = seen[spec.max_turns] if len(seen) > spec.max_turns else [None] * len(sides)
        return Found(
            data={"heard": {s.name: _heard(s, a, spec, env) for s, a in zip(sides, answers, strict=True)}},
        )

    def judge(self, spec: MultiTurnSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Two claims: own_history, base_history."""
        del p  # no null is drawn
        if not env.chat:
            claim = Question(verdict=Verdict.SKIP, message=_NO_TEMPLATE)
            return result_of(spec, {"own_history": claim}, headline="own_history", score=None, evidence={})
        heard: dict[str, _Heard] = found.data["heard"]
        claims = {name: h.question() for name, h in heard.items()}
        order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
        headline = min(claims, key=lambda name: order.index(claims[name].verdict))
        scores = [h.score(claims[name]) for name, h in heard.items()]
        return result_of(
            spec,
            claims,
            headline=headline,
            score=None if None in scores else min(s for s in scores if s is not None),
            evidence=_evidence(spec, heard),
        )


@dataclass(frozen=True, slots=True)
class _Side:
    """The conversations that one model wrote."""

    name: str
    view: View
    dialogues: tuple[Dialogue, ...]
    twice: tuple[dict[str, str], ...]

    def whole(self, spec: MultiTurnSpec) -> list[Dialogue]:
        """Return those that reached the last turn: every turn is compared on the same conversations."""
        return [d for d in self.dialogues if d.ended is None and len(d.replies) == spec.max_turns]


_AUTHORS: Final = {"own_history": FINETUNED, "base_history": BASE}


def _sides(spec: MultiTurnSpec, env: Env, seen: Seen) -> list[_Side]:
    """Return the conversations as far as they have come; those without room for another reply are ended."""
    prompts, twice = distinct(spec.prompts, str)
    sides = [_Side(name, view, tuple(map(Dialogue, prompts)), tuple(twice)) for name, view in _AUTHORS.items()]
    for turn in range(spec.max_turns):
        sides = [replace(side, dialogues=tuple(_checked(d, turn, spec, env) for d in side.dialogues)) for side in sides]
        if turn >= len(seen):
            break
        sides = [_with_replies(side, written) for side, written in zip(sides, seen[turn], strict=True)]
    return sides


def _checked(dialogue: Dialogue, turn: int, spec: MultiTurnSpec, env: Env) -> Dialogue:
    if dialogue.ended is not None:
        return dialogue
    room = max(spec.max_new_tokens, SPAN)
    return replace(dialogue, ended=fits(dialogue.before(turn, spec.follow_ups), env.codec, room=room))


def _with_replies(side: _Side, written: Written) -> _Side:
    texts = iter(written.texts[0])
    return replace(side, dialogues=tuple(d if d.ended else d.replied(next(texts)) for d in side.dialogues))


def _write(side: _Side, turn: int, spec: MultiTurnSpec) -> Write:
    prompts = tuple(d.before(turn, spec.follow_ups) for d in side.dialogues if d.ended is None)
    return Write(prompts, (side.view,), spec.max_new_tokens)


def _ask(side: _Side, spec: MultiTurnSpec) -> Ask:
    items = tuple(
        TextItem("", d.replies[t], d.prompt, shown(d.prompt), messages=d.before(t, spec.follow_ups))
        for t in range(spec.max_turns)
        for d in side.whole(spec)
    )
    return Ask(items, (FINETUNED,), frozenset({spec.divergence}), max_tokens=SPAN)


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """What one kind of conversation showed.

    Attributes:
        side: the conversations.
        spec: the probe's.
        floor: N0.
        table: float64[n_turns, n], the effect at each turn; None where nothing was scored.
        n_tokens: scored positions.
        fading: the claim's numbers; None where there is no effect to fade.
    """

    side: _Side
    spec: MultiTurnSpec
    floor: float
    table: npt.NDArray[np.float64] | None
    n_tokens: int
    fading: Fading | None

    def question(self) -> Question:
        """Return the verdict."""
        whose = "its own replies" if self.side.name == "own_history" else "the base's replies"
        if self.fading is not None:
            claim = self.fading.question()
            return claim.model_copy(update={"message": f"behind {whose}: {claim.message}"})
        if self.table is None:
            why = next((d.ended for d in self.side.dialogues if d.ended), "a conversation of the other kind ended")
            message = f"no conversation of {self.spec.max_turns} turns behind {whose}: {why}"
        else:
            mean = float(self.table[0].mean())
            message = f"no effect that could fade: {mean:.2g} nat in the first turn behind {whose}; give other prompts"
        return Question(verdict=Verdict.INCONCLUSIVE, message=message)

    def score(self, claim: Question) -> float | None:
        """Return the mark of the claim."""
        return None if self.fading is None else self.fading.score(claim)

    def evidence(self) -> dict[str, Any]:
        """Return what the verdict is made of."""
        dropped = [{"label": shown(d.prompt), "why": d.ended} for d in self.side.dialogues if d.ended]
        common: dict[str, Any] = {"dropped": [*self.side.twice, *dropped]}
        if self.table is None or self.fading is None:
            return common
        table, whole = self.table, self.side.whole(self.spec)

        def row(i: int) -> dict[str, Any]:
            by_turn = [float(x) for x in table[:, i]]
            return {"label": shown(whole[i].prompt), "by_turn": by_turn, "text": shown(whole[i].replies[-1])}

        n = table.shape[1]
        counts = {"n_items": int(table.size), "n_tokens": self.n_tokens, "n_clusters": n}
        items = worst_and_best(table[-1] - table[0], row)
        effect = table.mean(axis=1).tolist()
        return {**common, **self.fading.evidence(), "counts": counts, "effect": effect, "items": items}


def _heard(side: _Side, answer: Scores | None, spec: MultiTurnSpec, env: Env) -> _Heard:
    if answer is None:
        return _Heard(side, spec, env.floor, None, 0, None)
    means = np.maximum(item_means(answer, spec.divergence)[0], 0.0)
    table = means.reshape(spec.max_turns, -1)
    fading = None
    if table[0].mean() > beyond_rounding(spec.divergence, env.floor):
        found = decay(np.arange(spec.max_turns, dtype=np.float64), table)
        fading = Fading(
            found, "turns", spec.min_half_life, f"in turn {spec.max_turns}", "conversations", _farther(spec)
        )
    return _Heard(side, spec, env.floor, table, int(answer.tokens.sum()), fading)


def _farther(spec: MultiTurnSpec) -> str:
    needed = math.ceil(spec.min_half_life) + 1
    if needed <= _MOST_TURNS:
        return f"give `max_turns: {needed}`"
    return f"ask for a `min_half_life` of at most {_MOST_TURNS - 1}"


def _evidence(spec: MultiTurnSpec, heard: Mapping[str, _Heard]) -> dict[str, Any]:
    parts = {name: h.evidence() for name, h in heard.items()}
    curves = [{**c, "name": f"effect left, {name}"} for name, part in parts.items() for c in part.get("curves", [])]
    main = parts["own_history"]
    return {
        "divergence": spec.divergence,
        "turns": spec.max_turns,
        "curves": curves,
        "counts": main.get("counts", {"n_items": 0, "n_tokens": 0, "n_clusters": 0}),
        "dropped": main["dropped"],
        "items": main.get("items", {"largest": [], "smallest": []}),
        "smallest_decidable_effect": main.get("smallest_decidable_effect"),
        **{name: {k: v for k, v in part.items() if k != "curves"} for name, part in parts.items()},
    }
