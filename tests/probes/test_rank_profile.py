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
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, RunContext, build_probe

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
TEXTS = [f"the bell {i} is struck when the water falls" for i in range(8)]
ONE_PAIR = ("w60 w61 " * 12,)


def _claim(result: ProbeResult) -> Question:
    return Question.model_validate(result.evidence["claims"]["rank"])


def _profile(ran: Run, texts: tuple[str, ...], *, rank: int = 8, **spec: Any) -> ProbeResult:
    options = {"adapter": "trained", "towards": texts, "strength": 5.0, "rank": rank}
    return ran(options, kind="rank_profile", **({"items": texts} | spec))


def _by_hand(kept: list[float], *, n: int = 20, noise: float = 0.02) -> ProbeResult:
    """Judge made-up answers in which cut i keeps `kept[i]` of a gain of 1 nat per token."""
    texts = [f"text {i} of some words" for i in range(n)]
    probe, spec = build_probe({"name": "x", "kind": "rank_profile", "items": texts, "prompts": texts})
    env = Env(null_refusal="none here")
    scores = []
    for ask in probe.plan(spec, env, ()):
        rng, (name,) = stream(0, *ask.reducers), ask.reducers
        size = np.exp(0.3 * rng.standard_normal(n))
        rows = np.array([1.0, *kept])[:, None] * size + noise * rng.standard_normal((5, n))
        offsets = np.arange(n + 1) * 10
        scores.append(Scores(ask.items, ask.views, offsets, {name: np.repeat(rows, 10, axis=1)}, np.full(10 * n, -2.0)))
    seen = (tuple(scores),)
    assert probe.plan(spec, env, seen) == ()
    return probe.judge(spec, env, probe.measure(spec, env, seen), {})


@pytest.mark.healthy_pair
def test_a_gain_that_is_spread_over_the_rank_passes(ran: Run, language: Language) -> None:
    result = _profile(ran, language(20))
    claim = _claim(result)
    assert claim.verdict is Verdict.PASS
    shares = [row["gain"]["share"] for row in result.evidence["cuts"]]
    assert shares == sorted(shares)
    assert 0.6 < claim.effect < 0.9
    assert claim.interval[0] < claim.effect < claim.interval[1]
    assert 6 < result.evidence["effective_rank"]["mean"] <= 8
    assert result.score is None


@pytest.mark.planted_fault
def test_a_gain_that_sits_in_one_direction_of_many_warns(ran: Run) -> None:
    result = _profile(ran, ONE_PAIR, rank=16, items=tuple("w60 w61 " * n for n in range(9, 17)))
    assert result.verdict is Verdict.WARN
    assert "12 % of the rank carries the gain: a smaller rank would do" in result.message
    assert result.evidence["effective_rank"]["mean"] < 4


def test_a_gain_that_no_cut_keeps_warns() -> None:
    result = _by_hand([0.0, 0.01, 0.02, 0.04])
    assert result.verdict is Verdict.WARN
    assert "no cut keeps the gain" in result.message


def test_a_share_at_the_edge_is_not_decided() -> None:
    assert _by_hand([0.9, 0.95, 0.97, 0.99], noise=0.3).verdict is Verdict.INCONCLUSIVE


def test_an_adapter_without_a_gain_has_none_to_share(ran: Run, language: Language) -> None:
    for options in ({"adapter": "noise"}, {"adapter": "none"}):
        result = ran(options, kind="rank_profile", items=language(12))
        assert result.verdict is Verdict.INCONCLUSIVE
        assert "no gain that a cut could keep" in result.message


def test_without_items_the_effect_on_prompts_is_profiled(ran: Run) -> None:
    result = ran({"adapter": "noise"}, kind="rank_profile")
    assert result.verdict is Verdict.PASS
    assert "of the effect" in result.evidence["unit"]


def test_nulls_of_other_rank_are_shown_at_a_scale_that_does_not_saturate(ran: Run, language: Language) -> None:
    evidence = _profile(ran, language(20)).evidence
    nulls = evidence["nulls_by_rank"]
    assert list(nulls) == ["rank_0.50", "rank_1.00", "rank_2.00"]
    medians = [row["null_median"] for row in nulls.values()]
    assert medians == sorted(medians)  # energy is proportional to the multiplier
    assert {row["n_draws"] for row in nulls.values()} == {19}
    assert 0 < evidence["lam_star"] <= 1


def test_ranks_that_a_module_has_no_room_for_are_left_out_with_the_reason(ran: Run, language: Language) -> None:
    result = ran({"rank": 8, "vocab_size": 96}, kind="rank_profile", items=language(8), rank_multipliers=[1.0, 20.0])
    assert list(result.evidence["nulls_by_rank"]) == ["rank_1.00"]
    assert result.evidence["dropped"] == [
        {"label": "nulls of 20 times the rank", "why": "a module has fewer outputs than that many directions"}
    ]


def test_refused_nulls_leave_the_cuts(ran: Run, language: Language) -> None:
    result = ran({"refusal": "no rule for x"}, kind="rank_profile", items=language(8))
    assert result.evidence["dropped"][0]["why"] == "no rule for x"
    assert len(result.evidence["cuts"]) == 4


def test_small_ranks_are_cut_to_what_they_know(ran: Run, language: Language) -> None:
    result = _profile(ran, language(20), rank=2)
    assert [row["share_of_rank"] for row in result.evidence["cuts"]] == [0.5]
    assert "12 %" not in result.message
    assert _profile(ran, language(20), rank=1).verdict is Verdict.SKIP


def test_an_adapter_that_cannot_be_cut_is_skipped_with_the_reason(ran: Run, language: Language) -> None:
    result = ran({"cut_refusal": "lm_head.weight is no product of two factors"}, kind="rank_profile", items=language(8))
    assert result.verdict is Verdict.SKIP
    assert "lm_head.weight is no product of two factors" in result.message


@pytest.mark.parametrize("n", [1, 4])
def test_few_texts_are_inconclusive(n: int) -> None:
    result = _by_hand([0.2, 0.4, 0.6, 0.8], n=n)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "give at least 5" in result.message


@pytest.mark.parametrize(
    "options",
    [{"cuts": []}, {"cuts": [0.0]}, {"cuts": [1.0]}, {"cuts": [0.5, 0.25]}, {"rank_multipliers": [0.0]}, {"runs": 1}],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        build_probe({"name": "x", "kind": "rank_profile", **options})


def test_a_number_that_is_not_finite_is_an_error(ran: Run, language: Language) -> None:
    assert ran({"nan_in": frozenset({"adapter"})}, kind="rank_profile", items=language(6)).verdict is Verdict.ERROR


def test_the_same_run_gives_the_same_bytes(ran: Run, language: Language) -> None:
    one, other = (_profile(ran, language(12)) for _ in range(2))
    assert json.dumps(one.evidence, allow_nan=False) == json.dumps(other.evidence)


@pytest.mark.parametrize(("kind", "verdict"), [("ranks", Verdict.PASS), ("dora", Verdict.SKIP), ("ia3", Verdict.SKIP)])
def test_a_real_adapter_is_profiled_or_skipped(kind: str, verdict: Verdict) -> None:
    spec = {"name": "x", "kind": "rank_profile", "prompts": TEXTS, "runs": 3, "null_tokens": 64}
    probe, built = build_probe(spec)
    result = probe.run(built, RunContext(backend=backend_of("llama", kind), n_draws=3))
    assert result.verdict in (verdict, Verdict.INCONCLUSIVE) if verdict is Verdict.PASS else result.verdict is verdict
    if verdict is Verdict.PASS:
        assert [row["effect"]["share"] for row in result.evidence["cuts"]]
        assert len(result.evidence["layers"]) == 14
        assert set(result.evidence["nulls_by_rank"]) <= {"rank_0.50", "rank_1.00", "rank_2.00"}
