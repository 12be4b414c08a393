from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import CHAT, byte_tokenizer, lora, open_backend, save_adapter, save_base

from dlm_sway.backends.dummy_text import DummyCodec
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import Ask, Scores, Write, Written
from dlm_sway.probes.base import Env, RunContext, build_probe

Run = Callable[..., ProbeResult]
Effect = Callable[[int, int, str], float]
PROMPTS = tuple(f"w{50 + i} w{51 + i} w{52 + i}" for i in range(12))
SAYS = {"base": {"": "w52 w53 w54 w55"}, "adapter": {"": "w60 w61 w62 w63"}}
TRAINED = {
    "adapter": "trained",
    "towards": PROMPTS,
    "strength": 10.0,
    "chat_template": True,
    "max_length": 2048,
    "script": SAYS,
}


def spec_of(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "kind": "multi_turn_coherence_decay", "prompts": list(PROMPTS), **changes}


def env_of(max_length: int = 2048, **changes: Any) -> Env:
    return Env(chat=True, codec=DummyCodec(vocab_size=96, max_length=max_length, chat_template=True), **changes)


def written(ask: Write, text: str) -> Written:
    shape = (1, len(ask.prompts))
    return Written(ask, ((text,) * len(ask.prompts),), np.ones(shape, dtype=np.int64), np.ones(shape, dtype=bool))


def scored(ask: Ask, effect: Effect, side: str, turns: int) -> Scores:
    n = len(ask.items) // turns
    values = np.repeat([effect(k % n, k // n, side) for k in range(len(ask.items))], 2)[None, :]
    offsets = np.arange(len(ask.items) + 1) * 2
    return Scores(ask.items, ask.views, offsets, {"kl": values}, np.zeros(offsets[-1]))


def judged(effect: Effect, env: Env | None = None, says: str = "w60 w61", **changes: Any) -> ProbeResult:
    probe, spec = build_probe(spec_of(**changes))
    env, seen = env or env_of(), ()
    while asks := probe.plan(spec, env, seen):
        if isinstance(asks[0], Write):
            answers: tuple[Any, ...] = tuple(written(a, says) for a in asks)  # type: ignore[arg-type]
        else:
            sides = ("own_history", "base_history")
            answers = tuple(scored(a, effect, s, spec.max_turns) for a, s in zip(asks, sides, strict=True))  # type: ignore[arg-type, attr-defined]
        seen = (*seen, answers)  # type: ignore[assignment]
    return probe.judge(spec, env, probe.measure(spec, env, seen), {})


def lasting(i: int, t: int, side: str) -> float:
    del side
    return float(0.1 * (1 + i % 3) * np.exp(0.2 * np.random.default_rng((i, t)).standard_normal()))


def fading(i: int, t: int, side: str) -> float:
    return lasting(i, t, side) * 0.3**t


def fading_in_its_own(i: int, t: int, side: str) -> float:
    return fading(i, t, side) if side == "own_history" else lasting(i, t, side)


@pytest.mark.healthy_pair
def test_an_effect_that_lasts_in_both_kinds_of_conversation_passes() -> None:
    result = judged(lasting)
    assert result.verdict is Verdict.PASS
    assert [c["name"] for c in result.evidence["curves"]] == ["effect left, own_history", "effect left, base_history"]
    assert result.evidence["curves"][0]["x"] == [0, 1, 2, 3]
    assert result.evidence["counts"] == {"n_items": 48, "n_tokens": 96, "n_clusters": 12}


@pytest.mark.planted_fault
def test_an_effect_that_fades_fails() -> None:
    result = judged(fading)
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.evidence["own_history"]["half_life"] == pytest.approx(np.log(0.5) / np.log(0.3), rel=0.2)
    assert "behind its own replies: in turn 4" in result.message


def test_one_that_fades_behind_its_own_words_alone_is_told_from_one_that_length_wears_out() -> None:
    claims = judged(fading_in_its_own).evidence["claims"]
    assert (claims["own_history"]["verdict"], claims["base_history"]["verdict"]) == ("fail", "pass")


def test_conversations_that_end_before_the_half_life_asked_for_say_how_many_turns_they_must_have() -> None:
    def wavering(i: int, t: int, side: str) -> float:
        return lasting(i, t, side) * float(np.exp(0.5 * np.random.default_rng((3, i, t)).standard_normal()))

    result = judged(wavering, min_half_life=6.5)
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert result.message.endswith("that is too near to tell a half-life of 6.5 turns; give `max_turns: 8`")
    assert judged(wavering, min_half_life=3).verdict is Verdict.PASS
    assert judged(wavering, max_turns=3).verdict is Verdict.PASS
    assert "ask for a `min_half_life` of at most 31" in judged(wavering, min_half_life=40).message


def test_histories_are_written_turn_by_turn_and_read_by_both_models() -> None:
    probe, spec = build_probe(spec_of(prompts=["w50 w51"], max_turns=3, follow_ups=["go on", "and"]))
    env, seen = env_of(), ()
    for turn in range(3):
        own, base = asks = probe.plan(spec, env, seen)
        assert isinstance(own, Write)
        assert isinstance(base, Write)
        assert (own.views, base.views) == ((FINETUNED,), (BASE,))
        assert len(own.prompts[0]) == 1 + 2 * turn
        seen = (*seen, (written(own, f"own {turn}"), written(base, f"base {turn}")))  # type: ignore[assignment]
    asks = probe.plan(spec, env, seen)
    last = asks[1].items[-1]  # type: ignore[union-attr]
    assert [m["content"] for m in last.messages] == ["w50 w51", "base 0", "go on", "base 1", "and"]
    assert [m["role"] for m in last.messages] == ["user", "assistant"] * 2 + ["user"]
    assert (last.completion, asks[0].items[0].completion, asks[0].max_tokens) == ("base 2", "own 0", 16)  # type: ignore[union-attr]


def test_without_a_chat_template_it_is_skipped_with_the_reason(ran: Run) -> None:
    result = ran({"adapter": "noise"}, kind="multi_turn_coherence_decay", prompts=list(PROMPTS))
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert "no chat template" in result.message


def test_on_a_dummy_the_whole_path_runs(ran: Run) -> None:
    result = ran(TRAINED, kind="multi_turn_coherence_decay", prompts=list(PROMPTS), max_new_tokens=4)
    assert result.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)
    assert result.evidence["counts"]["n_tokens"] == 12 * 4 * 4
    assert len(result.evidence["curves"]) == 2


def test_an_adapter_without_effect_does_not_pass(ran: Run) -> None:
    options = {**TRAINED, "adapter": "none"}
    result = ran(options, kind="multi_turn_coherence_decay", prompts=list(PROMPTS), max_new_tokens=4)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no effect that could fade" in result.message


def test_conversations_that_outgrow_the_window_are_dropped_with_the_turn() -> None:
    long = " ".join(["w50"] * 60)
    result = judged(lasting, env_of(130), prompts=[*PROMPTS, long])
    assert len(result.evidence["dropped"]) == 1
    assert "the context window holds 130, with 48 for a reply" in result.evidence["dropped"][0]["why"]
    none = judged(lasting, env_of(60), prompts=list(PROMPTS))
    assert none.verdict is Verdict.INCONCLUSIVE
    assert "the context window holds 60" in none.message
    assert none.evidence["counts"]["n_items"] == 0


def test_replies_without_a_word_end_a_conversation() -> None:
    result = judged(lasting, says="  ")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "nothing is written in turn 1" in result.message


@pytest.mark.parametrize("n", [1, 4])
def test_a_few_conversations_cannot_decide(n: int) -> None:
    result = judged(lasting, prompts=list(PROMPTS[:n]))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "give at least 5" in result.message


def test_equal_prompts_are_one_conversation() -> None:
    result = judged(lasting, prompts=[PROMPTS[0]] * 12)
    assert result.evidence["counts"]["n_clusters"] == 1
    assert len(result.evidence["dropped"]) == 11
    assert result.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("change", [{"max_turns": 2}, {"prompts": []}, {"prompts": [" "]}, {"follow_ups": [""]}])
def test_what_cannot_be_asked_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        build_probe(spec_of(**change))


def test_values_that_are_not_finite_are_an_error(ran: Run) -> None:
    options = {**TRAINED, "nan_in": ["adapter"]}
    result = ran(options, kind="multi_turn_coherence_decay", prompts=list(PROMPTS))
    assert (result.verdict, result.score) == (Verdict.ERROR, 0.0)


def test_the_same_run_gives_the_same_result(ran: Run) -> None:
    one, two = (
        ran(TRAINED, kind="multi_turn_coherence_decay", prompts=list(PROMPTS), max_new_tokens=4).model_dump(
            exclude={"duration_s"}
        )
        for _ in range(2)
    )
    assert one == two


def test_on_a_model_the_whole_path_runs(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(bos=False, template=CHAT)
    base = save_base(tmp_path / "base", tokenizer=tokenizer, max_position_embeddings=512)
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora()))
    probe, spec = build_probe(spec_of(prompts=[f"Who is {name}?" for name in "abcdef"], max_turns=3, max_new_tokens=6))
    result = probe.run(spec, RunContext(backend=backend))
    backend.close()
    assert result.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE), result.message
    assert result.evidence["counts"]["n_clusters"] + len(result.evidence["dropped"]) == 6
    assert result.evidence["counts"]["n_tokens"] > 6
