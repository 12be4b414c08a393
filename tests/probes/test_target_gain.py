from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.controls import matched_controls
from dlm_sway.probes.unsaturated import PILOT_DRAWS

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]


def _claim(result: ProbeResult, name: str = "on_target") -> Question:
    return Question.model_validate(result.evidence["claims"][name])


def _learn(ran: Run, texts: tuple[str, ...], options: dict[str, Any] | None = None, **spec: Any) -> ProbeResult:
    items = spec.pop("items", texts)
    return ran({"adapter": "trained", "towards": texts, **(options or {})}, kind="target_gain", items=items, **spec)


@pytest.mark.healthy_pair
def test_a_trained_adapter_is_on_target_and_generalises(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), held_out=language(8, seed=1))
    assert result.verdict is Verdict.PASS
    for name in ("on_target", "generalises"):
        claim = _claim(result, name)
        assert claim.effect > 1
        assert claim.interval[0] > 0.5
        assert (claim.p, claim.unit, claim.null) == (0.05, "nat/token", "rotation (N1), 19 draws")
        null = result.evidence[name]["null"]
        assert (null["rank"], null["null_unit"], null["lam_star"]) == (1, "nat/token", result.evidence["lam_star"])
    assert result.score == 1.0
    assert result.evidence["statistic"] == result.evidence["on_target"]["null"]["statistic"]


def test_the_gain_is_the_mean_log_prob_per_token_that_the_fine_tune_adds(ran: Run, language: Language) -> None:
    backend = DummyBackend(DummyOptions(adapter="trained", towards=language(12)))
    items = (*language(5, seed=2), *language(3, seed=3, length=9))
    sums = []
    for opened in (backend.as_base(), backend.as_finetuned()):
        with opened as view:
            sums.append(sum(view.logprob_of("", text) for text in items))
    tokens = sum(len(text.split()) for text in items)
    result = ran(backend, kind="target_gain", items=items)
    assert result.raw == pytest.approx((sums[1] - sums[0]) / tokens, rel=1e-5)
    assert result.evidence["on_target"]["base_nats_per_token"] == pytest.approx(-sums[0] / tokens, rel=1e-5)
    assert result.evidence["on_target"]["gain"]["n_tokens"] == tokens


@pytest.mark.planted_fault
def test_an_adapter_of_other_text_is_not_on_target(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12, first=70), items=language(12), held_out=language(8, seed=1))
    assert {_claim(result, name).verdict for name in ("on_target", "generalises")} == {Verdict.FAIL}
    assert result.score == 0.0
    assert "under the minimum of 0.05 nat/token" in result.message


def test_what_is_learned_of_one_text_need_not_carry_over(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), held_out=language(12, first=70))
    assert _claim(result).verdict is Verdict.PASS
    assert _claim(result, "generalises").verdict is Verdict.FAIL
    assert result.verdict is Verdict.FAIL
    assert result.evidence["kept_on_held_out"]["ratio"] < 0.1


def test_held_out_text_keeps_a_share_of_the_gain_with_an_interval(ran: Run, language: Language) -> None:
    kept = _learn(ran, language(12), held_out=language(12, seed=1)).evidence["kept_on_held_out"]
    assert kept["interval"][0] < kept["ratio"] < kept["interval"][1]
    assert 0.8 < kept["ratio"] < 1.1


def test_without_held_out_text_nothing_is_claimed_about_it(ran: Run, language: Language) -> None:
    result = _learn(ran, language(6))
    assert set(result.evidence["claims"]) == {"on_target"}
    assert "kept_on_held_out" not in result.evidence


@pytest.mark.parametrize(("n", "counted"), [(1, "1 item"), (4, "4 items")])
def test_too_few_items_are_inconclusive_and_say_so(ran: Run, language: Language, n: int, counted: str) -> None:
    result = _learn(ran, language(12), items=language(12)[:n])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.message.endswith(f": {counted} cannot decide; give at least 5, better 30")
    assert result.score is None


def test_many_items_of_one_cluster_are_one_item(ran: Run, language: Language) -> None:
    items = [{"text": text, "cluster": "a document"} for text in language(12)]
    result = _learn(ran, language(12), items=items)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "1 item cannot decide" in result.message
    assert result.ci_95 is None


def test_held_out_items_that_were_trained_on_are_refused(language: Language) -> None:
    raw = {"name": "x", "kind": "target_gain", "items": language(4), "held_out": language(4)[2:]}
    with pytest.raises(BadInputError, match="2 held-out items are also in the training data, such as 'w"):
        build_probe(raw)
    apart = [{"prompt": "other", "completion": text} for text in language(4)]
    assert build_probe({**raw, "held_out": apart})


def test_controls_are_matched_passages_or_those_given(language: Language) -> None:
    probe, spec = build_probe({"name": "x", "kind": "target_gain", "items": language(30)})
    env = Env(seed=1)
    target, control, pilot = probe.plan(spec, env, ())
    assert target.items == spec.items  # type: ignore[attr-defined]
    assert control.items == matched_controls(target.items, rng=env.rng("x", "controls"))
    assert (len(target.views), len(control.views), len(pilot.views)) == (1, 1, PILOT_DRAWS)
    assert set(pilot.items) <= set(target.items)
    probe, spec = build_probe({"name": "x", "kind": "target_gain", "items": language(4), "controls": ["plain text"]})
    assert probe.plan(spec, env, ())[1].items == (TextItem("", "plain text", "0", "0"),)


def test_nulls_are_drawn_where_the_response_is_smooth_on_what_delta_kl_draws_them_on(language: Language) -> None:
    env = Env(seed=1, n_draws=19)
    pilots, draws = [], []
    for kind, texts, before in (("target_gain", "items", (None, None)), ("delta_kl", "prompts", (None,))):
        probe, spec = build_probe({"name": kind, "kind": kind, texts: language(30)})
        *_, pilot = probe.plan(spec, env, ())
        (ask,) = probe.plan(spec, env, ((*before, _strong(pilot)),))
        assert {view.lam for view in ask.views} == {0.038}  # type: ignore[union-attr]
        pilots.append(pilot)
        draws.append((ask.items, ask.views, ask.max_tokens))  # type: ignore[union-attr]
    assert pilots[0] == pilots[1]
    assert draws[0] == draws[1]


def _strong(pilot: Any) -> Scores:
    """Return an answer to a pilot in which all adapters alike have changed everything."""
    n = len(pilot.items)
    kl = np.full((len(pilot.views), n), 3.0)
    return Scores(pilot.items, pilot.views, np.arange(n + 1), {"kl": kl}, np.zeros(n))


def test_harm_to_the_controls_does_not_make_a_target_pass(ran: Run, language: Language) -> None:
    harmed = language(12, first=70)
    result = ran({"adapter": "trained", "away": harmed}, kind="target_gain", items=language(12), controls=harmed)
    assert result.evidence["on_target"]["against_control"]["low"] > 0.5
    assert _claim(result).verdict is not Verdict.PASS
    assert result.evidence["control"]["estimate"] < -0.5


def test_a_gain_that_every_text_has_is_not_on_target(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), items=language(12, seed=1), controls=language(12, seed=2), min_gain=0.5)
    assert result.raw > 1
    assert result.verdict is Verdict.FAIL
    assert "not 0.5 nat/token better than other text of the same form" in result.message


def _easy_and_hard(gain_of: Callable[[np.ndarray], np.ndarray], *, base_logprob: float, n: int = 12) -> Scores:
    """Return the answer to items of 10 tokens whose base log-probs spread around a mean, with gains that follow."""
    x = base_logprob + np.random.default_rng(0).normal(size=10 * n)
    items = tuple(TextItem("", f"text {i}", f"{base_logprob} {i}", "") for i in range(n))
    return Scores(items, (FINETUNED,), np.arange(0, 10 * n + 1, 10), {"gain": gain_of(x)[None]}, x)


@pytest.mark.parametrize(("extra", "verdict"), [(0.0, Verdict.FAIL), (0.5, Verdict.PASS)])
def test_a_text_that_gains_because_it_is_hard_is_not_on_target(extra: float, verdict: Verdict) -> None:
    probe, spec = build_probe({"name": "x", "kind": "target_gain", "items": ["a"]})
    control = _easy_and_hard(lambda x: -0.2 * x, base_logprob=-3.0)
    target = _easy_and_hard(lambda x: -0.2 * x + extra, base_logprob=-6.0)
    env = Env(null_refusal="none")
    result = probe.judge(spec, env, probe.measure(spec, env, ((target, control),)), {})
    assert result.verdict is verdict
    assert result.raw > 1
    assert result.evidence["on_target"]["against_control"]["estimate"] == pytest.approx(extra, abs=1e-6)


def test_a_noise_adapter_that_happens_to_gain_is_caught_by_its_nulls(ran: Run, language: Language) -> None:
    seeds = range(1, 9)  # seed 0 is one of the twenty that rank first
    results = [ran({"strength": 0.3, "adapter_seed": s}, kind="target_gain", items=language(12)) for s in seeds]
    lucky = [r for r in results if r.raw > 0.05 and r.ci_95[0] > 0]
    assert lucky
    for result in lucky:
        clearly = result.evidence["on_target"]["null"]["p"] >= 0.2
        assert result.verdict is (Verdict.FAIL if clearly else Verdict.INCONCLUSIVE)
        why = "random directions do as well" if clearly else "not clearly more than random directions"
        assert f"{why} (rank " in result.message


def test_too_few_draws_are_inconclusive_and_not_a_failure(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), settings={"n_draws": 9})
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.message.endswith("9 draws cannot reach p <= 0.05; use --draws 19 or more")


def test_without_a_null_the_items_decide_by_sign_flips(ran: Run, language: Language) -> None:
    result = _learn(ran, language(12), {"refusal": "tensor x has no rule"})
    claim = _claim(result)
    assert (claim.verdict, claim.null) == (Verdict.PASS, "sign flip of paired gains (N5)")
    assert claim.p == 2**-12
    assert (result.evidence["null_draws"], result.evidence["statistic"]) == ([], None)


def test_items_at_odds_are_inconclusive_and_say_how_many_would_decide(ran: Run, language: Language) -> None:
    items = [*language(3), *language(4, first=70)]
    result = ran(
        {"adapter": "trained", "towards": language(12), "away": language(12, first=70)},
        kind="target_gain",
        items=items,
        settings={"n_draws": 39},
    )
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.score is None
    needed = int(result.message.rpartition("7 items do not decide; about ")[2].removesuffix(" would"))
    assert needed > 7


def test_the_items_that_gained_most_and_least_are_shown(ran: Run, language: Language) -> None:
    items = [{"text": text, "label": f"known {i}"} for i, text in enumerate(language(6))]
    items.append({"text": language(1, first=70)[0], "label": "strange"})
    shown = _learn(ran, language(12), items=items).evidence["on_target"]["items"]
    assert shown["smallest"][0]["label"] == "strange"
    assert shown["largest"][0]["value"] > shown["smallest"][0]["value"]


def test_prompts_are_given_and_not_scored(ran: Run, language: Language) -> None:
    items = [{"prompt": text, "completion": " w50 w51"} for text in language(6)]
    result = _learn(ran, language(12), items=items)
    assert result.evidence["on_target"]["gain"]["n_tokens"] == 12


def test_prompts_go_through_the_chat_template_unless_told_otherwise(ran: Run, language: Language) -> None:
    items = [{"prompt": "w50", "completion": " w51 w52"} for _ in range(6)]

    def gained(style: str) -> float | None:
        return _learn(ran, language(12), {"chat_template": True}, items=items, settings={"format": style}).raw

    assert gained("auto") == gained("chat") != gained("raw")


def test_chat_without_a_template_is_an_error(ran: Run, language: Language) -> None:
    result = _learn(ran, language(6), settings={"format": "chat"})
    assert result.verdict is Verdict.ERROR
    assert "the tokenizer has no chat template" in result.message


def test_of_each_text_the_first_tokens_can_be_all_that_is_read(ran: Run, language: Language) -> None:
    texts, held_out = language(12, length=40), language(8, seed=1, length=40)
    backend = DummyBackend(DummyOptions(adapter="trained", towards=texts))
    result = ran(backend, kind="target_gain", items=texts, held_out=held_out, max_tokens=16)
    sums = []
    for opened in (backend.as_base(), backend.as_finetuned()):
        with opened as view:
            sums.append(sum(view.logprob_of("", " ".join(text.split()[:16])) for text in texts))
    assert result.raw == pytest.approx((sums[1] - sums[0]) / (12 * 16), rel=1e-5)
    assert [result.evidence[n]["gain"]["n_tokens"] for n in ("on_target", "generalises")] == [12 * 16, 8 * 16]
    assert result.evidence["control"]["n_tokens"] <= 24 * 16
    assert "nat/token of the first 16 tokens, " in result.message
    assert "first" not in ran(backend, kind="target_gain", items=texts).message
