from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.preference_flip import moderated

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]


def triples(chosen: tuple[str, ...], rejected: tuple[str, ...]) -> list[dict[str, str]]:
    return [
        {"prompt": f"question {i}", "chosen": c, "rejected": r}
        for i, (c, r) in enumerate(zip(chosen, rejected, strict=True))
    ]


def judged(
    before: list[float],
    change: list[float],
    *,
    p: float = 0.05,
    draws: float = 0.0,
    tokens: tuple[int, int] = (4, 4),
    cluster: str | None = None,
    **options: Any,
) -> ProbeResult:
    """Judge margins under the base, and how the fine-tune changes them, with the given p against its nulls."""
    n = len(before)
    given = [t | ({"cluster": cluster} if cluster else {}) for t in triples(("a",) * n, ("b",) * n)]
    raw = {"name": "x", "kind": "preference_flip", "triples": given, **options}
    probe, spec = build_probe(raw)
    env = Env(n_draws=19)
    ask, under_nulls = probe.plan(spec, env, ())

    def answer(ask: Any, n_views: int, changes: Any) -> Scores:
        size = np.tile(tokens, len(ask.items) // 2)
        offsets = np.concatenate([[0], np.cumsum(size)])
        share = np.repeat(1 / size, size)
        sides = np.zeros((n_views, len(ask.items)))
        sides[:, ::2] = changes
        base = np.zeros(len(ask.items))
        base[::2] = (before * (len(ask.items) // 2))[: len(ask.items) // 2]
        return Scores(
            ask.items,
            ask.views,
            offsets,
            {"gain": np.repeat(sides, size, axis=1) * share},
            np.repeat(base, size) * share,
        )

    k = len(under_nulls.items) // 2
    nulls = np.concatenate([np.full((1, k), np.mean(change)), np.full((19, k), draws)])
    seen = ((answer(ask, 1, [change]), answer(under_nulls, 20, nulls)),)
    assert probe.plan(spec, env, seen) == ()
    return probe.judge(spec, env, probe.measure(spec, env, seen), {"prefers": p})


def noisy(mean: float, n: int = 30, sd: float = 0.3) -> list[float]:
    return list(mean + sd * np.random.default_rng(0).standard_normal(n))


@pytest.mark.healthy_pair
def test_a_fine_tune_that_learned_the_preference_passes(ran: Run, language: Language) -> None:
    chosen, rejected = language(12), language(12, first=70)
    options = {"adapter": "trained", "towards": chosen, "away": rejected}
    result = ran(options, kind="preference_flip", triples=triples(chosen, rejected))
    assert result.verdict is Verdict.PASS
    assert result.raw > 0.2
    assert result.ci_95[0] > 0
    assert result.evidence["claims"]["prefers"]["p"] == 0.05
    assert result.evidence["preferred_by_finetune"] == 1.0
    assert result.score == 1.0


@pytest.mark.planted_fault
def test_the_opposite_preference_fails(ran: Run, language: Language) -> None:
    chosen, rejected = language(12), language(12, first=70)
    options = {"adapter": "trained", "towards": rejected, "away": chosen}
    result = ran(options, kind="preference_flip", triples=triples(chosen, rejected))
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.evidence["flips"]["n_to_rejected"] > 0


def test_the_margin_is_that_of_the_scoring_contract(ran: Run, language: Language) -> None:
    backend = DummyBackend(DummyOptions(adapter="trained", towards=language(4)))
    given = triples(language(6), language(6, first=70, length=9))
    margins = []
    for opened in (backend.as_base(), backend.as_finetuned()):
        with opened as view:
            sides = [[view.logprob_of(t["prompt"], " " + t[s]) for s in ("chosen", "rejected")] for t in given]
        margins.append([c - r for c, r in sides])
    result = ran(backend, kind="preference_flip", triples=given)
    assert result.raw == pytest.approx(np.mean(np.subtract(margins[1], margins[0])), rel=1e-5)
    assert result.evidence["preferred_by_base"] == np.mean(np.array(margins[0]) > 0)


def test_a_change_that_random_directions_make_as_well_fails() -> None:
    result = judged([0.0] * 30, noisy(1.0), p=0.5, draws=1.0)
    assert result.verdict is Verdict.FAIL
    assert "random directions do as well" in result.message


def test_a_change_that_is_not_clearly_more_than_random_directions_is_left_open() -> None:
    change = noisy(1.0)
    result = judged([0.0] * 30, change, p=0.1, draws=0.5)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "not clearly more than random directions" in result.message
    assert "`null_tokens`" in result.message


def test_random_directions_that_scatter_single_triples_do_not_hide_a_consistent_change() -> None:
    rng = np.random.default_rng(0)
    real = 1 + rng.standard_normal(30)
    wild = 20 * rng.standard_normal((99, 30))
    assert (wild.mean(axis=1) > real.mean()).mean() > 0.2
    stood = moderated(np.concatenate([real[None], wild]), 0.2)
    assert (stood[1:] >= stood[0]).mean() < 0.03


def test_a_tiny_change_that_hardly_scatters_is_not_large() -> None:
    steady = np.full((1, 30), 0.01) + 1e-4 * np.random.default_rng(0).standard_normal((1, 30))
    assert moderated(steady, 0.2)[0] == pytest.approx(0.05, rel=0.01)
    assert moderated(np.array([[0.1]]), 0.2)[0] == pytest.approx(0.5)


def test_a_change_under_the_minimum_fails_however_significant() -> None:
    assert judged([1.0] * 30, noisy(0.05, sd=0.01)).verdict is Verdict.FAIL


def test_flips_away_from_the_chosen_answer_fail_even_where_the_mean_grew() -> None:
    before = [0.1] * 10 + [5.0] * 20
    change = [-0.3] * 10 + [2.0] * 20
    result = judged(before, change)
    assert result.verdict is Verdict.FAIL
    assert "turned to the rejected answer more often" in result.message
    assert result.evidence["flips"]["n_to_rejected"] == 10
    assert result.evidence["flips"]["p_mcnemar"] == pytest.approx(2 * 0.5**10)


def test_flips_of_one_prompt_are_one_flip() -> None:
    result = judged([0.1] * 8, [-0.3] * 8, cluster="the same")
    assert result.evidence["flips"]["n_to_rejected"] == 8
    assert result.evidence["flips"]["p_mcnemar"] == 1.0
    assert result.verdict is Verdict.INCONCLUSIVE


def turned(one_each: list[tuple[float, float]], together: tuple[float, float], n: int) -> ProbeResult:
    """Judge margins (base, change): one triple a prompt, and `n` triples of one prompt more; no null is drawn."""
    given = triples(("a",) * len(one_each), ("b",) * len(one_each))
    given += [{"prompt": "the same", "chosen": f"a {i}", "rejected": f"b {i}"} for i in range(n)]
    probe, spec = build_probe({"name": "x", "kind": "preference_flip", "triples": given})
    env = Env(null_refusal="none")
    (ask,) = probe.plan(spec, env, ())
    base, change = np.zeros(len(ask.items)), np.zeros((1, len(ask.items)))
    base[::2], change[0, ::2] = np.transpose([*one_each, *[together] * n])
    seen = ((Scores(ask.items, ask.views, np.arange(len(ask.items) + 1), {"gain": change}, base),),)
    return probe.judge(spec, env, probe.measure(spec, env, seen), {})


STAYED = [(1.0, 1.0 + 0.1 * (i % 5)) for i in range(30)]


def test_many_triples_of_one_prompt_do_not_turn_the_direction() -> None:
    """Nine prompts turned to the chosen answer; one prompt turned away with ten triples, which outnumber them."""
    result = turned([*STAYED, *[(-0.1, 3.0)] * 9], (0.1, -0.3), 10)
    flips = result.evidence["flips"]
    assert (flips["n_to_chosen"], flips["n_to_rejected"]) == (9, 10)
    assert (flips["prompts_to_chosen"], flips["prompts_to_rejected"]) == (9, 1)
    assert flips["p_mcnemar"] == pytest.approx(22 * 0.5**10)
    assert result.verdict is Verdict.PASS
    assert "9 turned to the chosen answer, 10 away from it (prompts: 9 and 1): it learned" in result.message


def test_prompts_that_turned_away_fail_however_many_triples_of_one_prompt_turned_back() -> None:
    result = turned([*STAYED, *[(0.1, -0.3)] * 9], (-0.1, 3.0), 10)
    assert result.verdict is Verdict.FAIL
    assert "10 turned to the chosen answer, 9 away from it (prompts: 1 and 9): it turned to the" in result.message


def test_a_prompt_whose_triples_turned_both_ways_alike_has_not_turned() -> None:
    flips = judged([0.1, 0.1, -0.1, -0.1], [-0.3, -0.3, 0.3, 0.3], cluster="the same").evidence["flips"]
    assert (flips["prompts_to_chosen"], flips["prompts_to_rejected"], flips["p_mcnemar"]) == (0, 0, 1.0)


def test_triples_that_the_base_had_wrong_do_not_regress_to_a_pass() -> None:
    """Half of the triples flip each way by chance: choosing the wrong ones alone would see only gains."""
    rng = np.random.default_rng(1)
    before = list(rng.normal(size=200))
    after = rng.normal(size=200)
    result = judged(before, list(after - np.array(before)), p=0.05)
    assert result.verdict is not Verdict.PASS
    assert result.evidence["flips"]["n_to_chosen"] > 30
    assert result.evidence["flips"]["n_to_rejected"] > 30


def test_length_alone_moves_whole_answers_and_not_their_rate() -> None:
    """Each token gains 0.1 nat, and the chosen answer is the longer one by 10 tokens."""
    whole = judged([0.0] * 30, noisy(1.0, sd=0.01), tokens=(20, 10))
    assert whole.evidence["longer_chosen"] == 1.0
    rate = judged([0.0] * 30, noisy(1.0, sd=0.01), tokens=(20, 10), normalise="length")
    assert rate.raw == pytest.approx(whole.raw / 20)
    assert rate.evidence["unit"] == "nat/token"
    assert (whole.verdict, rate.verdict) == (Verdict.PASS, Verdict.FAIL)


@pytest.mark.parametrize("n", [1, 4])
def test_too_few_prompts_are_inconclusive(ran: Run, language: Language, n: int) -> None:
    given = triples(language(n), language(n, first=70))
    result = ran({"adapter": "trained", "towards": language(12)}, kind="preference_flip", triples=given)
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert f"{n} prompts cannot decide" in result.message


def test_triples_of_one_prompt_are_one_cluster(ran: Run, language: Language) -> None:
    given = [t | {"prompt": "the same"} for t in triples(language(12), language(12, first=70))]
    result = ran({"adapter": "trained", "towards": language(12)}, kind="preference_flip", triples=given)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.evidence["counts"]["n_clusters"] == 1
    apart = [t | {"prompt": ""} for t in given]
    assert ran({}, kind="preference_flip", triples=apart).evidence["counts"]["n_clusters"] == 12


def test_what_shows_no_preference_is_counted_apart(ran: Run, language: Language) -> None:
    (text,) = language(1)
    bad = [
        {"prompt": "a", "chosen": " ", "rejected": text},
        {"prompt": "b", "chosen": text, "rejected": text + " "},
    ]
    result = ran({}, kind="preference_flip", triples=bad)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert [d["why"] for d in result.evidence["dropped"]] == ["an answer is empty", "both answers are the same"]
    good = triples(language(6), language(6, first=70))
    result = ran({}, kind="preference_flip", triples=[*good, *bad, good[0]])
    assert result.evidence["counts"]["n_items"] == 6
    assert result.evidence["dropped"][-1]["why"] == "the same triple again"


def test_other_scripts_and_other_lengths_are_read(ran: Run) -> None:
    given = [
        {"prompt": p, "chosen": c, "rejected": r}
        for p, c, r in (
            ("你好吗", "很好谢谢你。", "不好"),
            ("مرحبا", "أهلا وسهلا", "لا"),
            ("🙂?", "👩‍👩‍👧‍👦 yes", "no 🙃"),
            ("q\u0301", "e\u0301t\u0301e", "non"),
            ("plain", "word " * 300, "word"),
        )
    ]
    result = ran({}, kind="preference_flip", triples=given)
    assert result.evidence["counts"]["n_items"] == 5
    assert np.isfinite(result.raw)


def test_a_prompt_beyond_the_window_is_an_error_that_names_it(ran: Run, language: Language) -> None:
    given = [*triples(language(6), language(6, first=70)), {"prompt": "word " * 50, "chosen": "a", "rejected": "b"}]
    result = ran({"max_length": 40}, kind="preference_flip", triples=given)
    assert result.verdict is Verdict.ERROR
    assert "triple 6 (chosen)" in result.message


def test_numbers_that_are_not_finite_are_an_error(ran: Run, language: Language) -> None:
    given = triples(language(6), language(6, first=70))
    result = ran({"nan_in": ["adapter"]}, kind="preference_flip", triples=given)
    assert (result.verdict, result.score) == (Verdict.ERROR, 0.0)


def test_without_a_null_the_triples_decide(ran: Run, language: Language) -> None:
    chosen, rejected = language(12), language(12, first=70)
    options = {"adapter": "trained", "towards": chosen, "away": rejected, "refusal": "no rule"}
    result = ran(options, kind="preference_flip", triples=triples(chosen, rejected))
    assert result.verdict is Verdict.PASS
    assert result.evidence["claims"]["prefers"]["null"] == "sign flip of paired gains (N5)"


def test_too_few_draws_are_inconclusive(ran: Run, language: Language) -> None:
    chosen, rejected = language(12), language(12, first=70)
    options = {"adapter": "trained", "towards": chosen, "away": rejected}
    result = ran(options, kind="preference_flip", triples=triples(chosen, rejected), settings={"n_draws": 9})
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "use --draws 19" in result.message


def test_a_pair_shares_its_prompt_and_nulls_see_a_part_of_the_triples(language: Language) -> None:
    given = triples(language(40), language(40, first=70))
    probe, spec = build_probe({"name": "x", "kind": "preference_flip", "triples": given, "null_tokens": 200})
    ask, under_nulls = probe.plan(spec, Env(), ())
    assert ask.views == (FINETUNED,)
    assert ask.items[0].prompt == ask.items[1].prompt == "question 0"
    assert [i.completion for i in under_nulls.items if i not in ask.items] != [ask.items[0].completion]
    assert 0 < len(under_nulls.items) < len(ask.items)
    assert len(under_nulls.items) % 2 == 0


def test_the_same_run_gives_the_same_bytes(ran: Run, language: Language) -> None:
    given = triples(language(8), language(8, first=70))
    first, second = (ran({}, kind="preference_flip", triples=given) for _ in range(2))
    keep = {"duration_s": 0.0}
    assert first.model_copy(update=keep).model_dump_json() == second.model_copy(update=keep).model_dump_json()


def test_a_triple_with_unknown_keys_is_refused() -> None:
    with pytest.raises(BadInputError, match="triples"):
        build_probe(
            {"name": "x", "kind": "preference_flip", "triples": [{"chosen": "a", "rejected": "b", "reward": 1}]}
        )


def test_noise_passes_no_more_often_than_its_level(ran: Run, language: Language) -> None:
    """An adapter of random weights, strong enough to move margins, over nulls of its own."""
    given = triples(language(12), language(12, first=70))
    passed = [
        ran(
            {"strength": 1.0, "adapter_seed": 500 + s},
            kind="preference_flip",
            triples=given,
            null_tokens=100,
            settings={"seed": s},
        ).verdict
        is Verdict.PASS
        for s in range(60)
    ]
    assert np.mean(passed) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
