from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.models import backend_of

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, RunContext, build_probe

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
LAM = np.array([0.25, 0.5, 0.75, 1.0, 1.25])
STEP = 1 / (1 + np.exp(-60 * (LAM - 0.6)))
SATURATED = 1 - np.exp(-12 * LAM)


def _claim(result: ProbeResult, name: str) -> Question:
    return Question.model_validate(result.evidence["claims"][name])


def _sweep(ran: Run, language: Language, *, strength: float, **spec: Any) -> ProbeResult:
    texts = language(20)
    given = {
        "prompts": language(12, seed=5),
        "items": texts,
        "held_out": language(12, seed=1),
        "controls": language(20, first=70, seed=2),
    }
    return ran(
        {"adapter": "trained", "towards": texts, "strength": strength}, kind="adapter_ablation", **(given | spec)
    )


def _by_hand(
    effect: np.ndarray, gain: np.ndarray | None = None, harm: np.ndarray | None = None, *, n: int = 20, **spec: Any
) -> ProbeResult:
    """Judge answers along given curves; items differ in size, and each is a little off its curve."""
    texts = [f"text {i} of some words" for i in range(n)]
    raw = {"name": "x", "kind": "adapter_ablation", "prompts": texts, "controls": texts, **spec}
    if gain is not None:
        raw["items"] = texts
    probe, spec_ = build_probe(raw)
    env = Env(floor=1e-9)
    curves = {"kl": [effect], "gain": [c for c in (gain, np.zeros(5) if harm is None else -harm) if c is not None]}

    def answer(ask: Ask, seed: int) -> Scores:
        (name,) = ask.reducers
        curve, rng, k = curves[name].pop(0), stream(seed, "hand"), len(ask.items)
        size = np.exp(0.3 * rng.standard_normal(k))
        values = curve[:, None] * size * (1 + 0.05 * rng.standard_normal((5, k)))
        offsets = np.arange(k + 1) * 10
        return Scores(ask.items, ask.views, offsets, {name: np.repeat(values, 10, axis=1)}, np.full(10 * k, -2.0))

    seen = (tuple(answer(ask, i) for i, ask in enumerate(probe.plan(spec_, env, ()))),)
    assert probe.plan(spec_, env, seen) == ()
    return probe.judge(spec_, env, probe.measure(spec_, env, seen), {})


@pytest.mark.healthy_pair
def test_a_trained_adapter_is_smooth_and_rising(ran: Run, language: Language) -> None:
    claim = _claim(_sweep(ran, language, strength=3.0), "shape")
    assert claim.verdict is Verdict.PASS
    assert claim.message.startswith("healthy: smooth and rising (grows with exponent 2.0 near 0")
    assert claim.interval[0] < claim.effect < claim.interval[1]


def test_a_healthy_dose_passes() -> None:
    result = _by_hand(LAM**2, np.array([1.0, 1.6, 1.9, 2.0, 2.0]))
    assert result.verdict is Verdict.PASS
    assert result.score == 1.0
    assert _claim(result, "dose").message.startswith("1.0 is as good as any other scale: target gain 2.")


@pytest.mark.planted_fault
def test_too_strong_an_adapter_crashes_and_fails(ran: Run, language: Language) -> None:
    result = _sweep(ran, language, strength=100.0)
    assert result.verdict is Verdict.FAIL
    assert _claim(result, "shape").message.startswith("overshoot-and-crash: beyond its best scale")
    assert result.score == 0.0


@pytest.mark.parametrize("adapter", ["noise", "none"])
@pytest.mark.planted_fault
def test_an_adapter_that_learned_nothing_fails(ran: Run, language: Language, adapter: str) -> None:
    result = ran({"adapter": adapter}, kind="adapter_ablation", items=language(20))
    name = {"noise": "overshoot-and-crash", "none": "flat"}[adapter]
    assert _claim(result, "shape").verdict is Verdict.FAIL
    assert result.evidence["shape"]["name"] == name


@pytest.mark.parametrize(("curve", "name"), [(STEP, "step"), (SATURATED, "saturated")])
def test_a_step_and_a_saturated_response_warn(curve: np.ndarray, name: str) -> None:
    result = _by_hand(curve)
    assert result.verdict is Verdict.WARN
    assert result.message.startswith(f"{name}: ")
    assert result.score == 0.5


def test_a_crash_beyond_the_full_scale_warns_only() -> None:
    result = _by_hand(LAM**2, np.array([1.0, 1.8, 2.0, 1.9, 0.3]))
    assert _claim(result, "shape").verdict is Verdict.WARN
    assert not result.evidence["shape"]["crashed_at_full"]


def test_a_gain_that_is_lost_at_full_scale_and_won_back_beyond_fails_by_its_name() -> None:
    result = _by_hand(LAM**2, np.array([0.5, 0.9, 1.0, 0.4, 0.8]))
    claim = _claim(result, "shape")
    assert (claim.verdict, result.evidence["shape"]["name"]) == (Verdict.FAIL, "overshoot-and-crash")
    assert claim.message.startswith(
        "overshoot-and-crash: beyond its best scale the gain is lost or the effect falls; the gain is lost at scale 1"
    )


def test_a_gain_that_comes_late_is_no_crash() -> None:
    result = _by_hand(LAM**2, np.array([0.1, 0.2, 0.3, 0.5, 1.2]))
    assert _claim(result, "shape").verdict is Verdict.PASS


def test_a_crash_that_may_have_come_at_full_scale_warns_and_says_how_often() -> None:
    claim = _claim(_by_hand(LAM**2, np.array([1.0, 1.8, 2.0, 1.0, 0.3])), "shape")
    assert claim.verdict is Verdict.WARN
    assert "; the gain is perhaps lost at scale 1 already (in " in claim.message


def test_a_better_scale_warns_with_the_exact_command() -> None:
    result = _by_hand(LAM**2, np.array([1.5, 2.23, 2.2, 2.14, 2.0]), np.array([-0.1, -0.11, 0.1, 0.26, 0.5]))
    claim = _claim(result, "dose")
    assert claim.verdict is Verdict.WARN
    line = result.evidence["dose"]["line"]
    assert line.startswith("at 0.5 of its scale: target gain 2.")
    assert line.endswith(", harm gone")
    assert result.message == f"{line}; sway rescale ADAPTER --lam 0.5 -o ADAPTER-at-0.5"
    assert claim.interval[0] <= claim.effect == 0.5 <= claim.interval[1]
    assert result.evidence["dose"]["kept_of_gain"]["share"] == pytest.approx(2.23 / 2.14, abs=0.1)
    assert result.score == 0.75


def test_a_gain_that_still_rises_warns(ran: Run, language: Language) -> None:
    claim = _claim(_sweep(ran, language, strength=3.0), "dose")
    assert claim.verdict is Verdict.WARN
    assert "and still rising, no harm at either; sway rescale ADAPTER --lam 1.25" in claim.message


def test_the_dose_goes_by_held_out_text_where_there_is_some(ran: Run, language: Language) -> None:
    with_held_out = _sweep(ran, language, strength=3.0)
    assert "held-out gain" in with_held_out.message
    assert [c["name"] for c in with_held_out.evidence["curves"]] == [
        "effect on the prompts (KL)", "gain on held-out text", "gain on target text", "loss on control text",
    ]  # fmt: skip
    assert "target gain" in _claim(_sweep(ran, language, strength=3.0, held_out=()), "dose").message


def test_without_text_that_should_gain_there_is_a_shape_and_no_dose() -> None:
    result = _by_hand(LAM**2)
    assert (result.verdict, _claim(result, "dose").verdict) == (Verdict.PASS, Verdict.SKIP)


def test_the_curves_begin_at_nothing_and_have_intervals(ran: Run, language: Language) -> None:
    result = _sweep(ran, language, strength=3.0)
    for curve in result.evidence["curves"]:
        assert (curve["x"], curve["y"][0]) == ([0.0, *LAM], 0.0)
        for low, y, high in zip(curve["low"], curve["y"], curve["high"], strict=True):
            assert low <= y <= high
    json.dumps(result.evidence, allow_nan=False)


@pytest.mark.parametrize("n", [1, 4])
def test_few_items_are_inconclusive_and_say_how_many_would_do(n: int) -> None:
    result = _by_hand(LAM**2, LAM, n=n)
    assert {_claim(result, name).verdict for name in ("shape", "dose")} == {Verdict.INCONCLUSIVE}
    assert "at least 5" in result.message
    assert result.score is None


def test_many_prompts_of_one_cluster_are_one(ran: Run, language: Language) -> None:
    prompts = [{"text": text, "cluster": "same"} for text in language(12, seed=5)]
    assert _claim(_sweep(ran, language, strength=3.0, prompts=prompts), "shape").verdict is Verdict.INCONCLUSIVE


def test_an_adapter_without_a_scale_is_skipped_with_the_reason(ran: Run, language: Language) -> None:
    result = ran({"scale_refusal": "layer.ia3_l has no scale"}, kind="adapter_ablation", items=language(6))
    assert result.verdict is Verdict.SKIP
    assert "layer.ia3_l has no scale" in result.message


def test_a_number_that_is_not_finite_is_an_error(ran: Run, language: Language) -> None:
    result = ran({"nan_in": frozenset({"adapter"})}, kind="adapter_ablation", items=language(6))
    assert result.verdict is Verdict.ERROR


@pytest.mark.parametrize(
    "lambdas", [[1.0], [0.5, 1.0], [0.0, 0.25, 0.5], [0.75, 1.0, 1.25], [1.0, 0.5, 0.25], [-0.5, 0.5, 1.0, 1.25]]
)
def test_scales_that_make_no_curve_are_refused(lambdas: list[float]) -> None:
    with pytest.raises(BadInputError, match="lambdas"):
        build_probe({"name": "x", "kind": "adapter_ablation", "lambdas": lambdas})


def test_other_scripts_are_texts_like_any_other(ran: Run) -> None:
    texts = ["鐘が鳴る 潮 " * 4, "مد وجزر " * 4, "🔔🌊 " * 6, "e\u0301" * 9, "צלצול " * 5, "колокол " * 5]
    assert ran({}, kind="adapter_ablation", items=texts).verdict is not Verdict.ERROR


def test_the_same_run_gives_the_same_bytes(ran: Run, language: Language) -> None:
    one, other = (_sweep(ran, language, strength=3.0) for _ in range(2))
    assert json.dumps(one.evidence) == json.dumps(other.evidence)


@pytest.mark.parametrize("kind", ["qv", "dora", "saved-norm", "ia3"])
def test_a_real_adapter_is_swept_or_skipped(kind: str) -> None:
    texts = [f"the bell {i} is struck when the water falls" for i in range(8)]
    probe, spec = build_probe({"name": "x", "kind": "adapter_ablation", "prompts": texts, "controls": texts})
    result = probe.run(spec, RunContext(backend=backend_of("llama", kind)))
    assert (result.verdict is Verdict.SKIP) == (kind == "ia3")
    assert result.verdict is not Verdict.ERROR
