from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, Found, NullTest, build_probe
from dlm_sway.probes.delta_kl import beyond_rounding, statistic
from dlm_sway.probes.unsaturated import PILOT_DRAWS, PILOT_LAM, TARGET_KL, lam_star

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
MakeScores = Callable[..., Scores]


def _claim(result: ProbeResult, name: str) -> Question:
    return Question.model_validate(result.evidence["claims"][name])


def _learn(ran: Run, texts: tuple[str, ...], options: dict[str, Any] | None = None, **spec: Any) -> ProbeResult:
    return ran({"adapter": "trained", "towards": texts, **(options or {})}, kind="delta_kl", prompts=texts, **spec)


@pytest.mark.healthy_pair
def test_a_trained_adapter_is_applied_and_learned(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12))
    assert result.verdict is Verdict.PASS
    learned = _claim(result, "learned")
    assert (learned.p, learned.null, learned.unit) == (0.05, "rotation (N1), 19 draws", "x the median null")
    assert learned.effect == result.raw == result.evidence["ratio"] > 1.5
    assert result.evidence["rank"] == 1
    assert len(result.evidence["null_draws"]) == 19
    assert result.score == pytest.approx(math.log(result.raw) / math.log(4))
    assert _claim(result, "applied").effect == result.evidence["effect_at_1"]["estimate"] > 0.05


@pytest.mark.parametrize("strength", [0.1, 0.3, 1.0])
@pytest.mark.planted_fault
def test_a_noise_adapter_is_applied_and_not_learned(ran: Run, language: Language, strength: float) -> None:
    result = ran({"strength": strength, "adapter_seed": 1}, kind="delta_kl", prompts=language(12))
    assert _claim(result, "applied").verdict is Verdict.PASS
    assert (_claim(result, "learned").verdict, result.score) == (Verdict.FAIL, 0.0)
    assert "does no more than random weights of its size (rank " in result.message
    assert 0.7 < result.raw < 1.3


@pytest.mark.planted_fault
def test_an_adapter_of_zeros_is_not_applied(ran: Run, language: Language) -> None:
    result = ran({"adapter": "none"}, kind="delta_kl", prompts=language(6))
    assert _claim(result, "applied").verdict is Verdict.FAIL
    assert _claim(result, "applied").effect == 0.0
    assert (_claim(result, "learned").verdict, _claim(result, "learned").effect) == (Verdict.FAIL, None)
    assert result.evidence["lam_star"] == 1.0
    assert "nothing was learned" in result.message


@pytest.mark.parametrize(
    ("at_pilot", "expected"),
    [
        (TARGET_KL, PILOT_LAM),
        (TARGET_KL / 4, 2 * PILOT_LAM),
        (TARGET_KL * 25, PILOT_LAM / 5),
        (TARGET_KL / 16, 1.0),
        (TARGET_KL / 1e6, 1.0),
        (TARGET_KL * 1e9, 0.001),
        (0.0, 1.0),
        (-1e-9, 1.0),
    ],
)
def test_the_scale_is_where_the_median_kl_would_be_the_target(
    scores_of: MakeScores, at_pilot: float, expected: float
) -> None:
    pooled = np.array([9.0, 0.0, at_pilot, at_pilot, at_pilot])
    assert lam_star(scores_of([4], kl=np.repeat(pooled[:, None], 4, axis=1))) == pytest.approx(expected, abs=1e-3)


def test_a_strong_adapter_is_measured_where_it_does_not_saturate(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), {"strength": 20.0})
    assert result.evidence["lam_star"] < 0.5
    assert 0.02 < result.evidence["null_median"] < 0.2
    assert _claim(result, "learned").verdict is Verdict.PASS
    assert _claim(result, "applied").effect > 1


def test_positions_then_items_then_clusters_are_averaged(scores_of: MakeScores) -> None:
    values = [[1.0, 3.0, 10.0, 5.0, 7.0, 9.0]]  # items: (1, 3), (10), (5, 7, 9); the first two form a cluster
    found = statistic(scores_of([2, 1, 3], ["a", "a", "b"], kl=values), "kl")
    assert found.tolist() == [((2.0 + 10.0) / 2 + 7.0) / 2]


def _dense(backend: DummyBackend, opened: Any, prompt: str) -> np.ndarray:
    with opened as view:
        dist = view.next_token_dist(prompt, top_k=10**6)
    out = np.empty(backend.options.vocab_size)
    out[dist.token_ids] = dist.logprobs
    return out


def _by_hand(divergence: str, p: np.ndarray, q: np.ndarray) -> float:
    mix = np.log((np.exp(p) + np.exp(q)) / 2)
    return float(
        {
            "kl": np.exp(p) @ (p - q),
            "js": (np.exp(p) @ (p - mix) + np.exp(q) @ (q - mix)) / 2,
            "tv": np.abs(np.exp(p) - np.exp(q)).sum() / 2,
        }[divergence]
    )


@pytest.mark.parametrize("divergence", ["kl", "js", "tv"])
def test_the_effect_at_the_next_token_is_that_of_the_whole_distributions(
    ran: Run, language: Language, divergence: str
) -> None:
    backend = DummyBackend(DummyOptions(adapter="trained", towards=language(12)))
    prompts = language(6, seed=3)
    result = ran(backend, kind="delta_kl", prompts=prompts, position="last", divergence=divergence)
    expected = [
        _by_hand(divergence, _dense(backend, backend.as_base(), p), _dense(backend, backend.as_finetuned(), p))
        for p in prompts
    ]
    assert result.evidence["effect_at_1"]["estimate"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert result.evidence["effect_at_1"]["n_tokens"] == result.evidence["null_tokens"] == len(prompts)
    assert result.evidence["divergence"] == divergence


def test_every_token_of_a_text_counts_by_default(ran: Run, language: Language) -> None:
    backend = DummyBackend(DummyOptions(adapter="trained", towards=language(12)))
    (text,) = language(1, seed=3, length=5)
    result = ran(backend, kind="delta_kl", prompts=[text])
    heads = ["", *(" ".join(text.split()[:n]) for n in range(1, 5))]
    expected = [
        _by_hand("kl", _dense(backend, backend.as_base(), h), _dense(backend, backend.as_finetuned(), h)) for h in heads
    ]
    assert _claim(result, "applied").effect == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("divergence", ["js", "tv"])
def test_a_bounded_divergence_tells_trained_from_noise(ran: Run, language: Language, divergence: str) -> None:
    trained = _learn(ran, language(12), divergence=divergence)
    noise = ran({"strength": 0.3, "adapter_seed": 1}, kind="delta_kl", prompts=language(12), divergence=divergence)
    assert (trained.verdict, noise.verdict) == (Verdict.PASS, Verdict.FAIL)


@pytest.mark.parametrize("divergence", ["kl", "js", "tv"])
def test_what_rounding_explains_is_no_effect_by_any_divergence(scores_of: MakeScores, divergence: str) -> None:
    probe, spec = build_probe({"name": "x", "kind": "delta_kl", "prompts": ["a"], "divergence": divergence})
    kl = np.full((1, 4), 3.7e-6)
    plain = scores_of([2, 2], kl=kl, js=kl / 4, tv=np.sqrt(kl / 4))
    for floor, verdict in ((5e-6, Verdict.FAIL), (1e-7, Verdict.PASS)):
        env = Env(n_draws=19, floor=floor, null_refusal="no rule")
        result = probe.judge(spec, env, Found(data={"plain": plain}), {})
        assert _claim(result, "applied").verdict is verdict
        assert _claim(result, "applied").effect == pytest.approx(3.7e-6)
    assert (np.sqrt(kl / 2) <= beyond_rounding("tv", 3.7e-7) + 1e-12).all()


def test_too_few_draws_are_inconclusive_and_say_how_many_it_takes(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), settings={"n_draws": 18})
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.score is None
    assert result.message == "18 draws cannot reach p <= 0.05; use --draws 19 or more"


def test_without_a_null_only_the_floor_is_asked(ran: Run, language: Language) -> None:
    result = _learn(ran, language(6), {"refusal": "tensor x has no rule"})
    assert _claim(result, "applied").verdict is Verdict.PASS
    assert _claim(result, "learned").verdict is Verdict.SKIP
    assert "no null for this kind of adapter: tensor x has no rule" in result.message
    assert (result.score, result.raw) == (None, None)
    assert "null_draws" not in result.evidence


def test_a_significant_ratio_under_the_minimum_does_not_pass(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), min_ratio=50)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "beyond every random direction, but barely (rank 1 of 20" in result.message


def test_a_change_that_no_null_input_shows_is_inconclusive(scores_of: MakeScores) -> None:
    probe, spec = build_probe({"name": "x", "kind": "delta_kl", "prompts": ["a"]})
    plain = scores_of([2, 2], kl=np.ones((1, 4)))
    data = {"plain": plain, "lam": 1.0, "at_star": scores_of([2], kl=np.zeros((20, 2)))}
    found = Found((NullTest("learned", 0.0, np.zeros(19), "log"),), data)
    result = probe.judge(spec, Env(n_draws=19), found, {"learned": 1.0})
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "shows no change at all" in result.message


def test_the_built_in_prompts_are_used_where_none_are_given(ran: Run) -> None:
    result = ran({"strength": 1.0}, kind="delta_kl")
    assert result.evidence["effect_at_1"]["n_items"] == len(GENERAL_PROMPTS)
    assert result.evidence["items"]["largest"][0]["label"].startswith("prompt ")


def test_nulls_see_a_part_of_the_texts_within_the_budget(ran: Run, language: Language) -> None:
    texts = language(40)
    result = ran({"strength": 1.0}, kind="delta_kl", prompts=texts, null_tokens=200)
    assert result.evidence["effect_at_1"]["n_tokens"] == 40 * 24
    assert 100 <= result.evidence["null_tokens"] <= 200


def test_what_nulls_see_does_not_depend_on_any_score(scores_of: MakeScores, language: Language) -> None:
    probe, spec = build_probe({"name": "x", "kind": "delta_kl", "prompts": language(40)})
    env = Env(seed=3, n_draws=19)
    asks = []
    for size in (0.01, 3.0):
        seen = ((scores_of([4], kl=np.zeros((1, 4))), scores_of([4], kl=np.full((20, 4), size))),)
        asks.append(probe.plan(spec, env, seen)[0])
    assert asks[0].items == asks[1].items
    assert asks[0].views[0].lam > asks[1].views[0].lam
    assert probe.plan(spec, env, (*seen, seen[0])) == ()


def test_real_and_null_adapters_ride_one_ask_and_the_pilot_is_of_neither(
    scores_of: MakeScores, language: Language
) -> None:
    probe, spec = build_probe({"name": "x", "kind": "delta_kl", "prompts": language(4)})
    plain, pilot = probe.plan(spec, Env(seed=3, n_draws=19), ())
    assert (len(plain.views), plain.max_tokens) == (1, None)
    assert (len(pilot.views), pilot.max_tokens) == (PILOT_DRAWS, 32)
    assert {view.lam for view in pilot.views} == {PILOT_LAM}
    assert {(view.kind, view.seed) for view in pilot.views} == {("rotation", 3)}
    answered = scores_of([4], kl=np.full((PILOT_DRAWS, 4), TARGET_KL))
    nulls = probe.plan(spec, Env(seed=3, n_draws=19), ((plain, answered),))[0].views[1:]
    assert [view.draw for view in nulls] == list(range(19))
    # lam* must not depend on what is ranked: the pilot's draws are in no test.
    assert not {view.draw for view in pilot.views} & {view.draw for view in nulls}
    assert pilot.views == probe.plan(spec, Env(seed=3, n_draws=39), ())[1].views
