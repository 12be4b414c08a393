from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, build_probe

Run = Callable[..., ProbeResult]
Language = Callable[..., tuple[str, ...]]
KIND = {"name": "x", "kind": "membership"}
WORDS = ("old", "mill", "river", "spring", "nobody", "asked", "why", "it", "stood", "empty", "for", "so", "long")


def plain(n: int, *, seed: int) -> list[str]:
    rng = stream(seed, "plain")
    return [" ".join(rng.choice(WORDS, 30)) + f" {i}." for i in range(n)]


def scores_for(ask: Ask, gain: Sequence[float], *, base: float = -2.0, tokens: int = 30) -> Scores:
    n = len(ask.items)
    values = {"gain": np.repeat(np.asarray(gain), tokens)[None]}
    return Scores(ask.items, (FINETUNED,), np.arange(n + 1) * tokens, values, np.full(n * tokens, base))


def judged(
    members: Sequence[float],
    others: Sequence[float],
    *,
    base: tuple[float, float] = (-2.0, -2.0),
    alpha: float = 0.05,
    **spec: Any,
) -> ProbeResult:
    """Judge documents of one form with these gains per token."""
    env = Env(alpha=alpha)
    texts = {"items": plain(len(members), seed=1), "held_out": plain(len(others), seed=2)}
    probe, made = build_probe({**KIND, **texts, "max_documents": 10_000, **spec})
    asks = probe.plan(made, env, ())
    seen = (tuple(scores_for(a, g, base=b) for a, g, b in zip(asks, (members, others), base, strict=True)),)
    assert probe.plan(made, env, seen) == ()
    return probe.judge(made, env, probe.measure(made, env, seen), {})


def gains(n: int, mean: float, *, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return stream(seed, "gains", n).normal(mean, 1.0, n)


def test_by_itself_it_informs_and_never_judges() -> None:
    for mean in (0.0, 3.0):
        result = judged(gains(40, mean, seed=1), gains(40, 0.0, seed=2))
        assert (result.verdict, result.score) == (Verdict.SKIP, None)
        assert "p " in result.message
        assert result.ci_95[0] < result.raw < result.ci_95[1] <= 1


def test_the_interval_is_never_narrower_than_it_is_read_as() -> None:
    """`sway compare` reads it as one of 90 %, whatever level the suite asked its tests for."""
    given = gains(40, 1.0, seed=1), gains(40, 0.0, seed=2)
    strict, usual, lax = (judged(*given, alpha=alpha).ci_95 for alpha in (0.01, 0.05, 0.2))
    assert lax == usual
    assert strict[0] < usual[0] < usual[1] < strict[1]


@pytest.mark.planted_fault
def test_documents_that_stand_out_fail_where_that_is_not_meant() -> None:
    members, others = gains(60, 3.0, seed=1), gains(60, 0.0, seed=2)
    result = judged(members, others, intent="generalize")
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.evidence["auc"] > 0.95
    assert result.evidence["found_at_5_percent"] > 0.7
    assert result.evidence["items"]["largest"][0]["kind"] == "trained"
    assert judged(members, others, intent="memorize").verdict is Verdict.PASS


@pytest.mark.healthy_pair
def test_documents_that_do_not_stand_out_pass() -> None:
    members, others = gains(100, 0.0, seed=3), gains(100, 0.0, seed=4)
    result = judged(members, others, intent="generalize")
    assert (result.verdict, result.score) == (Verdict.PASS, 1.0)
    assert result.ci_95[1] < 0.65
    assert judged(members, others, intent="memorize").verdict is Verdict.FAIL


def test_a_moderate_difference_is_left_open_and_says_what_would_decide() -> None:
    result = judged(gains(35, 0.5, seed=1), gains(35, 0.0, seed=2), intent="generalize")
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert "of each would decide" in result.message


@pytest.mark.parametrize("n", [1, 2, 29])
def test_fewer_than_thirty_documents_never_pass(n: int) -> None:
    alike = judged(np.linspace(0, 1, n), np.linspace(0.5, 2, n), intent="generalize")
    assert alike.verdict is Verdict.INCONCLUSIVE
    assert "30 documents on each side would tell more" in judged([0.0] * n, [0.0] * n).message


def test_few_documents_that_stand_out_are_no_pass_where_that_is_meant() -> None:
    few = judged(np.full(4, 3.0) + np.arange(4) / 9, np.arange(4) / 9, intent="memorize")
    assert (few.verdict, few.score) == (Verdict.INCONCLUSIVE, None)
    assert "give 30 documents on each side" in few.message
    enough = judged(gains(30, 4.0, seed=1), gains(30, 0.0, seed=2), intent="memorize")
    assert enough.verdict is Verdict.PASS


def test_documents_that_differ_under_the_base_already_are_a_warning_and_no_failure() -> None:
    members, others = gains(60, 3.0, seed=1), gains(60, 0.0, seed=2)
    informed = judged(members, others, base=(-1.0, -3.0))
    assert informed.verdict is Verdict.WARN
    assert "differ in log-prob under the base" in informed.evidence["claims"]["same_source"]["message"]
    assert judged(members, others, base=(-1.0, -3.0), intent="generalize").verdict is Verdict.INCONCLUSIVE


def test_documents_of_another_form_are_a_warning() -> None:
    odd = [f"{i} :: [{i}] = {{{i * 7}}}; # {i}" for i in range(40)]
    result = judged([0.0] * 40, [0.0] * 40, held_out=odd)
    assert result.verdict is Verdict.WARN
    assert set(result.evidence["unlike"]) >= {"digits", "symbols"}


def test_documents_of_one_form_are_no_warning() -> None:
    warned = [judged(gains(40, 0, seed=s), gains(40, 0, seed=-s)).verdict is Verdict.WARN for s in range(3)]
    assert not any(warned)


def test_items_of_one_cluster_are_one_document() -> None:
    items = [{"text": text, "cluster": str(i // 4)} for i, text in enumerate(plain(40, seed=1))]
    result = judged([0.0] * 40, [0.0] * 40, items=items)
    assert result.evidence["counts"]["n_clusters"] == 10 + 40


def test_duplicates_count_once_and_more_than_enough_are_drawn() -> None:
    probe, spec = build_probe({**KIND, "items": plain(50, seed=1) * 2, "held_out": plain(30, seed=2)})
    assert [len(ask.items) for ask in probe.plan(spec, Env(), ())] == [50, 30]
    probe, spec = build_probe({**KIND, "items": plain(50, seed=1), "held_out": plain(9, seed=2), "max_documents": 20})
    first, second = (probe.plan(spec, Env(seed=seed), ())[0].items for seed in (0, 1))
    assert (len(first), first != second) == (20, True)
    assert {i.completion for i in first} < set(plain(50, seed=1))


def test_white_space_makes_no_document_and_another_question_does() -> None:
    spaced = {"items": ["an old mill" + " " * i for i in range(40)], "held_out": plain(30, seed=2)}
    probe, spec = build_probe({**KIND, **spaced})
    assert [len(ask.items) for ask in probe.plan(spec, Env(), ())] == [1, 30]
    sides = {
        name: [{"completion": "Yes.", "messages": [{"role": "user", "content": f"{name} {i}?"}]} for i in range(40)]
        for name in ("items", "held_out")
    }
    probe, spec = build_probe({**KIND, **sides})
    assert [len(ask.items) for ask in probe.plan(spec, Env(), ())] == [40, 40]


def test_held_out_text_that_was_trained_on_is_refused() -> None:
    with pytest.raises(BadInputError, match="1 held-out items are also in the training data"):
        build_probe({**KIND, "items": ["a b"], "held_out": ["a b", "c"]})


def test_a_dummy_that_learned_its_documents_is_told_and_noise_is_not(ran: Run, language: Language) -> None:
    items, unseen = language(60), language(60, first=70)
    options = {"adapter": "trained", "towards": items, "strength": 4.0}
    spec = {"kind": "membership", "items": items, "held_out": unseen}
    assert ran(options, **spec).evidence["auc"] == 1.0
    same = {"kind": "membership", "items": language(100), "held_out": language(100, seed=1), "intent": "generalize"}
    noise = ran({"strength": 1.0}, **same)
    assert noise.evidence["p"] > 0.05
    assert noise.verdict is Verdict.PASS


def test_an_adapter_that_does_nothing_tells_nothing(ran: Run, language: Language) -> None:
    spec = {"items": language(40), "held_out": language(40, seed=1), "intent": "memorize"}
    result = ran({"adapter": "none"}, kind="membership", **spec)
    assert (result.raw, result.evidence["p"]) == (0.5, 1.0)
    assert result.verdict in (Verdict.INCONCLUSIVE, Verdict.FAIL)


def test_other_scripts_and_long_documents_are_read(ran: Run) -> None:
    items = ["日本語 の 文", "نص عربي قصير", "🙂 🙃 🙂", "w50 " * 3000]
    result = ran(
        {"adapter": "none", "max_length": 200}, kind="membership", items=items, held_out=["a b c", "e\u0301 f"]
    )
    assert result.verdict in (Verdict.SKIP, Verdict.WARN)
    assert result.evidence["counts"]["n_clusters"] == 6


def test_numbers_that_are_none_are_an_error(ran: Run, language: Language) -> None:
    for who in ("adapter", "base"):
        options = {"nan_in": [who]}
        result = ran(options, kind="membership", items=language(5), held_out=language(5, seed=1))
        assert result.verdict is Verdict.ERROR


def test_the_result_is_the_same_bytes_again(ran: Run, language: Language) -> None:
    spec = {"kind": "membership", "items": language(30), "held_out": language(30, seed=1)}
    first, second = (ran({"strength": 0.5}, **spec).model_copy(update={"duration_s": 0.0}) for _ in range(2))
    assert first.model_dump_json() == second.model_dump_json()
