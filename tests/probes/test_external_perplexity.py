from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.data.control import control_passages, registers
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.drive import Driven

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
MakeScores = Callable[..., Scores]
BORDERLINE = {"strength": 0.2, "adapter_seed": 0}  # loses 0.048 nat per token where 0.05 is the margin


def _harm(ran: Run, options: dict[str, Any], **spec: Any) -> ProbeResult:
    return ran(options, kind="external_perplexity", **spec)


def _passages(language: Language, *, registers: int, each: int) -> list[dict[str, str]]:
    """Passages of registers that share no word, interleaved."""
    texts = [language(each, first=48 + 4 * i, words=4, seed=3) for i in range(registers)]
    return [
        {"text": text, "stratum": f"r{i}", "cluster": f"{i}-{j}", "label": f"{i}-{j}"}
        for j, row in enumerate(zip(*texts, strict=True))
        for i, text in enumerate(row)
    ]


@pytest.mark.healthy_pair
def test_a_harmless_adapter_passes_at_the_first_look(ran: Run, language: Language) -> None:
    result = _harm(ran, {"adapter": "trained", "towards": language(12), "strength": 2.0})
    assert (result.verdict, result.score) == (Verdict.PASS, 1.0)
    assert result.evidence["n_items"] == 32
    assert result.evidence["loss"]["upper"] < 0.05
    assert result.evidence["method"].startswith("given critical value")  # Pocock's: it pays for the looking
    assert "loss +0.026 nat/token on 32 control passages: surely under the margin (bound +0.0" in result.message


@pytest.mark.planted_fault
def test_a_harmful_adapter_fails_at_the_first_look(ran: Run) -> None:
    result = _harm(ran, {"strength": 1.0})
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.evidence["n_items"] == 32
    assert result.evidence["loss"]["lower"] > 0.05
    assert "surely over the margin of 0.05 (at least +" in result.message


def test_a_loss_at_the_margin_is_read_to_the_end_and_left_open(ran: Run) -> None:
    result = _harm(ran, BORDERLINE)
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert result.evidence["n_items"] == len(control_passages())
    assert result.evidence["n_to_decide"] > result.evidence["n_clusters"]
    assert f"about {result.evidence['n_to_decide']:,} passages would decide" in result.message


@pytest.mark.parametrize(("margin", "verdict"), [(0.2, Verdict.PASS), (0.01, Verdict.FAIL)])
def test_the_margin_is_the_users(ran: Run, margin: float, verdict: Verdict) -> None:
    result = _harm(ran, BORDERLINE, margin=margin)
    assert (result.verdict, result.evidence["n_items"]) == (verdict, 32)


def test_an_improvement_is_no_harm(ran: Run) -> None:
    texts = [p.text for p in control_passages()[:60]]
    result = _harm(ran, {"adapter": "trained", "towards": texts})
    assert result.verdict is Verdict.PASS
    assert result.raw < 0


def test_nulls_are_shown_beside_and_never_have_to_be_beaten(ran: Run, language: Language) -> None:
    options = {"adapter": "trained", "towards": language(12), "strength": 2.0}
    beside = _harm(ran, options).evidence["null_beside"]
    assert beside["n_draws"] == 19
    assert 1 <= beside["rank"] <= 20
    alone = _harm(ran, {**options, "refusal": "tensor x has no rule"})
    assert alone.verdict is Verdict.PASS
    assert alone.evidence["null_beside"] is None
    assert _harm(ran, options).evidence["claims"]["no_harm"]["p"] is None


def _read(scores_of: MakeScores, losses: Sequence[float]) -> Scores:
    return scores_of([10] * len(losses), gain=np.repeat(-np.asarray(losses), 10)[None])


def _asks(scores_of: MakeScores, *, loss: float, n: int) -> list[tuple[str, ...]]:
    """Return the labels that each round asks for when every passage loses about `loss`."""
    raw = [{"text": "a b", "label": str(i), "cluster": str(i)} for i in range(n)]
    probe, spec = build_probe({"name": "x", "kind": "external_perplexity", "passages": raw})
    rng, seen, rounds = np.random.default_rng(0), (), []
    while asks := probe.plan(spec, Env(null_refusal="none"), seen):
        rounds.append(tuple(item.label for item in asks[0].items))
        seen = (*seen, (_read(scores_of, rng.normal(loss, 0.2, size=len(rounds[-1]))),))
    return rounds


@pytest.mark.parametrize(
    ("n", "looks"),
    [
        (1, [1]),
        (20, [20]),
        (32, [32]),
        (33, [33]),
        (40, [32, 40]),
        (64, [32, 48, 64]),
        (65, [32, 48, 65]),
        (129, [32, 48, 64, 96, 129]),
        (232, [32, 48, 64, 96, 128, 232]),
    ],
)
def test_each_passage_is_read_once_and_in_an_order_that_the_seed_alone_gives(
    scores_of: MakeScores, n: int, looks: list[int]
) -> None:
    rounds, again = (_asks(scores_of, loss=0.05, n=n) for _ in range(2))
    assert rounds == again
    assert sorted(int(label) for labels in rounds for label in labels) == list(range(n))
    assert np.cumsum([len(labels) for labels in rounds]).tolist() == looks


def test_passages_sorted_by_register_are_read_from_each_in_turn(scores_of: MakeScores) -> None:
    """Harm to the second half of a sorted file was behind the look at which the first half had decided."""
    raw = [
        {"text": f"{kind} {i}", "label": f"{kind} {i}", "cluster": f"{kind} {i}", "stratum": kind}
        for kind in ("prose", "code")
        for i in range(100)
    ]
    probe, spec = build_probe({"name": "x", "kind": "external_perplexity", "passages": raw})
    env, rng = Env(null_refusal="none"), np.random.default_rng(0)
    (ask,) = probe.plan(spec, env, ())
    assert [item.stratum for item in ask.items].count("code") == len(ask.items) / 2
    losses = [2.0 * (item.stratum == "code") + rng.normal(0, 0.05) for item in ask.items]
    read = replace(_read(scores_of, losses), items=ask.items)
    result = probe.judge(spec, env, probe.measure(spec, env, ((read,),)), {})
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(("n", "verdict"), [(5, Verdict.INCONCLUSIVE), (29, Verdict.INCONCLUSIVE), (30, Verdict.PASS)])
def test_few_passages_never_show_that_no_harm_was_done(ran: Run, n: int, verdict: Verdict) -> None:
    texts = [p.text for p in control_passages()[:n]]
    result = _harm(ran, {"adapter": "trained", "towards": texts}, passages=texts)
    assert result.raw < 0
    assert result.verdict is verdict
    assert ("give 30 or more" in result.message) is (n < 30)


@pytest.mark.parametrize("loss", [-0.5, 0.5])
def test_reading_ends_when_the_bound_is_decided(scores_of: MakeScores, loss: float) -> None:
    assert [len(labels) for labels in _asks(scores_of, loss=loss, n=232)] == [32]


def test_registers_are_reported_and_balanced_at_every_look(ran: Run) -> None:
    rows = _harm(ran, {"strength": 1.0}).evidence["registers"]
    assert [row["register"] for row in rows] == list(registers())
    assert {row["n_items"] for row in rows} == {3, 4}  # 32 passages over nine registers


def test_harm_to_one_register_fails_however_small_the_average_is(ran: Run, language: Language) -> None:
    passages = _passages(language, registers=10, each=12)
    harmed = [p["text"] for p in passages if p["stratum"] == "r3"]
    options = {"adapter": "trained", "away": harmed, "strength": 0.2, "rank": 4}
    result = _harm(ran, options, passages=passages)
    assert abs(result.raw) < 0.05
    assert result.verdict is Verdict.FAIL
    assert "surely over the margin of 0.05 on: r3 (+0." in result.message
    assert [r["register"] for r in result.evidence["registers"] if r["decision"] == "outside"] == ["r3"]


def test_certain_harm_to_one_register_decides_an_open_average(ran: Run, language: Language) -> None:
    passages = _passages(language, registers=10, each=12)
    harmed = [p["text"] for p in passages if p["stratum"] == "r3"]
    result = _harm(ran, {"adapter": "trained", "away": harmed, "strength": 0.5, "rank": 4}, passages=passages)
    assert result.evidence["loss"]["lower"] < 0.05 < result.evidence["loss"]["upper"]
    assert result.verdict is Verdict.FAIL


def _lists_lose(
    scores_of: MakeScores, much: float, *, rest: float = 0.0, **options: Any
) -> tuple[ProbeResult, list[list[str]]]:
    """Return the result where one register of the shipped corpus loses `much`, and the registers of each round."""
    probe, spec = build_probe({"name": "x", "kind": "external_perplexity", "null_tokens": 0, **options})
    env, rng, seen, rounds = Env(), np.random.default_rng(0), (), []
    while asks := probe.plan(spec, env, seen):
        rounds.append([item.stratum for item in asks[0].items])
        losses = [much if kind == "lists" else rest for kind in rounds[-1]] + rng.normal(0, 0.02, len(rounds[-1]))
        seen = (*seen, (replace(_read(scores_of, losses), items=asks[0].items),))
    labels = [item.label for (scores,) in seen for item in scores.items]
    assert len(set(labels)) == len(labels)
    return probe.judge(spec, env, probe.measure(spec, env, seen), {}), rounds


def test_a_register_in_doubt_is_read_on_to_its_end_and_the_average_stays_as_it_was(scores_of: MakeScores) -> None:
    result, rounds = _lists_lose(scores_of, 0.12)
    assert result.verdict is Verdict.FAIL
    assert "surely over the margin of 0.05 on: lists (+0.1" in result.message
    assert {kind for kinds in rounds[1:] for kind in kinds} == {"lists"}
    assert [len(kinds) for kinds in rounds] == [32, 3, 6, 12, 4]  # of 28 lists
    assert result.evidence["n_items"] == 32
    assert result.evidence["loss"]["upper"] < 0.05
    assert {r["register"]: r["n_items"] for r in result.evidence["registers"]}["lists"] == 28


def test_a_register_that_surely_lost_and_perhaps_more_than_the_margin_leaves_the_question_open(
    scores_of: MakeScores,
) -> None:
    result, rounds = _lists_lose(scores_of, 0.047)
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert "surely under the margin (bound +0.0" in result.message
    assert "but perhaps over it on: lists (+0.05" in result.message
    assert result.message.endswith("more such text would decide")
    assert sum(map(len, rounds)) == 32 + 25


def test_without_reading_on_the_looks_are_all_that_is_read(scores_of: MakeScores) -> None:
    _, rounds = _lists_lose(scores_of, 0.12, read_on=False)
    assert [len(kinds) for kinds in rounds] == [32]


@pytest.mark.parametrize(("lists", "rest"), [(0.0, 0.0), (0.03, 0.0), (0.02, 0.02)])
def test_no_register_is_read_on_that_is_under_the_margin(scores_of: MakeScores, lists: float, rest: float) -> None:
    result, rounds = _lists_lose(scores_of, lists, rest=rest)
    assert (result.verdict, [len(kinds) for kinds in rounds]) == (Verdict.PASS, [32])


def test_passages_of_one_document_count_as_one_in_every_register(ran: Run, language: Language) -> None:
    passages = [p | {"cluster": p["stratum"]} for p in _passages(language, registers=3, each=8)]
    result = _harm(ran, {"strength": 1.0}, passages=passages)
    assert result.evidence["n_clusters"] == 3
    assert {row["decision"] for row in result.evidence["registers"]} == {"undecided"}
    assert {row["lower"] for row in result.evidence["registers"]} == {None}


def test_a_single_passage_decides_nothing(ran: Run) -> None:
    result = _harm(ran, {"strength": 1.0}, passages=["one two three four"])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert (result.ci_95, result.evidence["n_to_decide"]) == (None, None)


def test_passages_are_cut_and_read_as_plain_text(driven: Callable[..., Driven]) -> None:
    passages = [{"text": " ".join(["w60 w61"] * 100), "label": str(i), "cluster": str(i)} for i in range(6)]
    found = driven({"chat_template": True}, {"kind": "external_perplexity", "passages": passages}, format="chat")
    assert found.results[0].evidence["n_tokens"] == 6 * 128


def test_at_most_so_many_passages_are_read_as_many_of_each_register_in_one_look(ran: Run, language: Language) -> None:
    result = _harm(ran, BORDERLINE, max_passages=36, read_on=False)
    assert result.evidence["n_items"] == 36
    assert {row["n_items"] for row in result.evidence["registers"]} == {4}
    looked = _harm(ran, BORDERLINE, margin=0.2, read_on=False).evidence
    assert looked["n_items"] == 32
    # Nobody looks twice, so no bound is widened for it.
    assert _width(result.evidence) < 0.85 * _width(looked)
    own = _passages(language, registers=3, each=20)
    found = _harm(ran, BORDERLINE, passages=own, max_passages=33, read_on=False).evidence
    assert [row["n_items"] for row in found["registers"]] == [11, 11, 11]


def _width(evidence: dict[str, Any]) -> float:
    """Return half the interval in standard errors of a mean of as many passages."""
    loss = evidence["loss"]
    return float((loss["upper"] - loss["estimate"]) * evidence["n_items"] ** 0.5)
