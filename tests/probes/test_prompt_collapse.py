from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.dummy_text import DummyCodec
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, build_probe

Run = Callable[..., ProbeResult]
TEXTS = tuple(" ".join(f"w{48 + (i + 3 * j) % 48}" for j in range(24)) for i in range(16))
TRAINED = {"adapter": "trained", "towards": TEXTS, "strength": 10.0, "max_length": 2048}


def spec_of(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "kind": "prompt_collapse", "prompts": list(TEXTS), **changes}


def env_of(max_length: int = 4096, **changes: Any) -> Env:
    return Env(codec=DummyCodec(vocab_size=96, max_length=max_length, chat_template=False), **changes)


def answered(asks: tuple[Ask, ...], effect: Callable[[int, int], float]) -> tuple[Scores, ...]:
    """Answer each ask: `effect(i, j)` is what prompt i shows at the j-th length."""
    out = []
    for i, ask in enumerate(asks):
        values = np.repeat([effect(i, j) for j in range(len(ask.items))], 3)[None, :]
        offsets = np.arange(len(ask.items) + 1) * 3
        out.append(Scores(ask.items, ask.views, offsets, {"kl": values}, np.zeros(offsets[-1])))
    return tuple(out)


def judged(effect: Callable[[int, int], float], env: Env | None = None, **changes: Any) -> ProbeResult:
    probe, spec = build_probe(spec_of(**changes))
    env = env or env_of()
    asks = probe.plan(spec, env, ())
    seen = (answered(asks, effect),) if asks else ()  # type: ignore[arg-type]
    if asks:
        assert probe.plan(spec, env, seen) == ()
    return probe.judge(spec, env, probe.measure(spec, env, seen), {})


def fading(half_life: float, *, noise: float = 0.2) -> Callable[[int, int], float]:
    lengths = (0, 256, 512, 1024)

    def effect(i: int, j: int) -> float:
        rng = np.random.default_rng((i, j))
        return 0.2 * (1 + i % 3) * 2 ** (-lengths[j] / half_life) * math.exp(noise * rng.standard_normal())

    return effect


@pytest.mark.healthy_pair
def test_an_effect_that_lasts_passes_and_is_the_best_result() -> None:
    result = judged(fading(math.inf))
    assert result.verdict is Verdict.PASS
    assert result.score == pytest.approx(1.0, abs=0.2)
    assert result.ci_95 is not None
    assert 0.5 < result.ci_95[0] < result.raw < result.ci_95[1]  # type: ignore[operator]
    (curve,) = result.evidence["curves"]
    assert curve["x"] == [0, 256, 512, 1024]
    assert (curve["y"][0], curve["low"][0], curve["high"][0]) == (1.0, 1.0, 1.0)


@pytest.mark.planted_fault
def test_an_effect_that_fades_within_a_short_context_fails() -> None:
    result = judged(fading(100.0))
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.evidence["half_life"] == pytest.approx(100, rel=0.2)
    assert result.evidence["half_life_interval"][1] < 512
    assert "it fades" in result.message


def test_a_half_life_long_enough_passes_though_less_than_half_is_left_at_the_end() -> None:
    result = judged(fading(900.0, noise=0.05))
    assert result.raw is not None
    assert result.raw < 0.5
    assert result.verdict is Verdict.PASS


def test_contexts_that_end_before_the_half_life_asked_for_say_how_long_they_must_be() -> None:
    near = judged(fading(math.inf, noise=0.6), context_lengths=[0, 64, 128])
    assert (near.verdict, near.score) == (Verdict.INCONCLUSIVE, None)
    assert near.message.endswith("that is too near to tell a half-life of 512 tokens; give `context_lengths` up to 512")
    assert judged(fading(math.inf), context_lengths=[0, 64, 128], min_half_life=128).verdict is Verdict.PASS
    capped = judged(fading(math.inf, noise=0.6), env_of(max_length=300))
    assert capped.verdict is Verdict.INCONCLUSIVE
    assert "the context window holds 300 tokens and the longest prompt takes 24, so ask" in capped.message
    assert capped.message.endswith("so ask for a `min_half_life` of at most 276")


def test_the_lengths_and_the_half_life_asked_for_go_together_by_default() -> None:
    _, spec = build_probe(spec_of())
    assert max(spec.context_lengths) >= spec.min_half_life  # type: ignore[attr-defined]


def test_prompts_that_differ_too_much_say_how_many_would_decide() -> None:
    result = judged(fading(600.0, noise=1.0))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.score is None
    assert "16 prompts do not decide; about" in result.message


@pytest.mark.parametrize("n", [1, 4])
def test_a_few_prompts_cannot_decide(n: int) -> None:
    result = judged(fading(math.inf), prompts=list(TEXTS[:n]))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"{n} prompts cannot decide; give at least 5" in result.message


def test_an_adapter_without_effect_does_not_pass(ran: Run) -> None:
    result = ran({"adapter": "none"}, kind="prompt_collapse", prompts=list(TEXTS), context_lengths=[64])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no effect that could fall" in result.message


def test_on_a_model_that_reads_two_tokens_a_context_changes_nothing(ran: Run) -> None:
    result = ran(TRAINED, kind="prompt_collapse", prompts=list(TEXTS))
    assert result.verdict is Verdict.PASS
    assert result.raw == pytest.approx(1.0)
    assert result.evidence["half_life_known"]
    assert result.evidence["counts"] == {"n_items": 16, "n_tokens": 4 * 16 * 16, "n_clusters": 16}
    assert result.evidence["left_by_filler"] == pytest.approx([1.0] * 4)


def test_each_prompt_stands_behind_exactly_so_many_tokens_of_one_text() -> None:
    probe, spec = build_probe(spec_of(fillers=2))
    env = env_of()
    asks = probe.plan(spec, env, ())
    assert len(asks) == len(TEXTS)
    for ask in asks:
        sizes = [len(env.codec.encode_pair(i.prompt, i.completion).ids) for i in ask.items]  # type: ignore[union-attr]
        assert np.diff(sizes).tolist() == [256, 256, 512]
        assert len({i.completion for i in ask.items}) == 1  # type: ignore[union-attr]
    first, third, second = (asks[i].items[1].prompt for i in (0, 2, 1))  # type: ignore[union-attr]
    assert first.split()[:256] == third.split()[:256] != second.split()[:256]


def test_lengths_are_capped_by_the_context_window_and_the_evidence_says_why() -> None:
    result = judged(lambda i, j: 0.1 * (i + 1) * (1 - 0.01 * j), env_of(max_length=300))
    assert result.evidence["context_lengths"] == [0, 256, 276]
    assert result.evidence["capped"] == {
        "asked": 1024,
        "read": 276,
        "why": "the context window holds 300 tokens and the longest prompt takes 24",
    }


def test_a_corpus_that_is_too_small_for_the_length_caps_it() -> None:
    result = judged(lambda i, j: 0.1 * (i + 1) * (1 - 0.01 * j), env_of(1 << 20), context_lengths=[0, 100_000])
    assert "ask for fewer `fillers`" in result.evidence["capped"]["why"]


def test_prompts_that_cannot_be_used_are_dropped_with_the_reason() -> None:
    long = " ".join(f"w{i % 90 + 5}" for i in range(400))
    result = judged(fading(math.inf), env_of(600), prompts=[*TEXTS, TEXTS[0], "w", long])
    assert [d["why"] for d in result.evidence["dropped"]] == [
        "given before",
        "too short to be cut into a beginning and an end",
        "takes more than half of the context window",
    ]
    assert result.evidence["counts"]["n_items"] == len(TEXTS)
    nothing = judged(fading(1.0), prompts=["w"])
    assert nothing.verdict is Verdict.INCONCLUSIVE
    assert "give longer prompts" in nothing.message


def test_a_window_with_no_room_is_inconclusive() -> None:
    result = judged(fading(1.0), env_of(2), prompts=["w50 w51", "w52 w53"])
    assert result.verdict is Verdict.INCONCLUSIVE


def test_prompts_of_one_cluster_count_as_one() -> None:
    prompts = [{"text": t, "cluster": str(i % 3)} for i, t in enumerate(TEXTS)]
    result = judged(fading(math.inf), prompts=prompts)
    assert result.evidence["counts"]["n_clusters"] == 3
    assert result.verdict is Verdict.INCONCLUSIVE


def test_the_built_in_prompts_and_prompts_with_completions_are_read(ran: Run) -> None:
    assert ran(TRAINED, kind="prompt_collapse", context_lengths=[32]).evidence["counts"]["n_items"] == 32
    pairs = [{"prompt": t, "completion": " w50 w51"} for t in TEXTS]
    chat = ran({**TRAINED, "chat_template": True}, kind="prompt_collapse", prompts=pairs, context_lengths=[32])
    assert chat.evidence["counts"]["n_tokens"] == 2 * 2 * 16
    assert chat.raw == pytest.approx(1.0)


@pytest.mark.parametrize("lengths", [[0], [-1, 50], [5], []])
def test_lengths_without_a_context_are_refused(lengths: list[int]) -> None:
    with pytest.raises(BadInputError, match="context_lengths"):
        build_probe(spec_of(context_lengths=lengths))


def test_values_that_are_not_finite_are_an_error(ran: Run) -> None:
    result = ran({**TRAINED, "nan_in": ["adapter"]}, kind="prompt_collapse", prompts=list(TEXTS), context_lengths=[32])
    assert (result.verdict, result.score) == (Verdict.ERROR, 0.0)


def test_the_same_run_gives_the_same_result(ran: Run) -> None:
    one, two = (
        ran(TRAINED, kind="prompt_collapse", prompts=list(TEXTS), context_lengths=[64]).model_dump(
            exclude={"duration_s"}
        )
        for _ in range(2)
    )
    assert one == two
