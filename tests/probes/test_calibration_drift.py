from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.data.facts import facts, facts_hash
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.choices import Choice, distinct

Run = Callable[..., ProbeResult]
Grid = np.ndarray[Any, np.dtype[np.float64]]
KIND = {"name": "x", "kind": "calibration_drift"}
OPTIONS = ("w60", "w61", "w62", "w63")


def questions(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"q {i}", "options": OPTIONS, "answer": OPTIONS[i % 4], **more} for i in range(n)]


def scores_for(ask: Ask, base: Grid, finetuned: Grid, *, tokens: int = 2) -> Scores:
    """Answer an ask whose options score as the rows of these grids, spread evenly over `tokens` each."""
    first, second = (np.repeat(grid.ravel() / tokens, tokens) for grid in (base, finetuned))
    assert len(first) == len(ask.items) * tokens
    offsets = np.arange(len(ask.items) + 1) * tokens
    return Scores(ask.items, (FINETUNED,), offsets, {"gain": (second - first)[None]}, first)


def asked_for(ask: Ask) -> list[int]:
    """Return the numbers of the questions asked for, in their order."""
    return list(dict.fromkeys(int(item.prompt.rpartition("q ")[2].split()[0]) for item in ask.items))


def judged(base: Grid, finetuned: Grid, **spec: Any) -> ProbeResult:
    """Judge a base and a fine-tune that score options like this, read as far as the probe asks for."""
    probe, made = build_probe({**KIND, "facts": questions(len(base)), **spec})
    env, seen = Env(), ()
    while asks := probe.plan(made, env, seen):
        rows = asked_for(asks[0])
        seen = (*seen, (scores_for(asks[0], base[rows], finetuned[rows]),))
    return probe.judge(made, env, probe.measure(made, env, seen), {})


def knowing(n: int, *, sure: float = 3.0, seed: int = 0, share: float = 1.0) -> Grid:
    """A base that prefers the right option by about `sure` nats in a share of the questions."""
    rng = stream(seed, "knowing", n)
    grid = rng.normal(-10, 0.5, (n, 4))
    grid[np.arange(n), np.arange(n) % 4] += sure * (rng.random(n) < share)
    return grid


def shaken(grid: Grid, *, loss: float = 0.0, spread: float = 0.1, seed: int = 1) -> Grid:
    """The same answers with noise, and the right option worse by `loss` nats."""
    out = grid + stream(seed, "shaken", len(grid)).normal(0, spread, grid.shape)
    out[np.arange(len(out)), np.arange(len(out)) % 4] -= loss
    return out


@pytest.mark.healthy_pair
def test_a_model_that_kept_what_it_knew_passes_at_the_first_look() -> None:
    base = knowing(320)
    result = judged(base, shaken(base))
    claims = result.evidence["claims"]
    assert (result.verdict, result.score) == (Verdict.PASS, 1.0)
    assert {name: claim["verdict"] for name, claim in claims.items()} == {"knowledge": "pass", "calibration": "pass"}
    assert result.evidence["counts"] == {"n_items": 80, "n_tokens": 640, "n_clusters": 80}
    assert result.evidence["loss"]["upper"] < 0.05
    assert "surely under the margin (bound +0.0" in result.message


@pytest.mark.planted_fault
def test_a_model_that_unlearned_fails_and_the_lost_facts_are_shown() -> None:
    base = knowing(320, sure=2.0)
    result = judged(base, shaken(base, loss=3.0))
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.evidence["claims"]["knowledge"]["verdict"] == "fail"
    assert result.evidence["claims"]["accuracy"]["verdict"] == "fail"
    assert result.evidence["counts"]["n_items"] == 80
    worst = result.evidence["items"]["largest"][0]
    assert worst["finetuned"] != worst["answer"] == worst["base"]
    assert result.evidence["items"]["largest"][0]["value"] >= result.evidence["items"]["smallest"][0]["value"]


def test_harm_to_what_the_base_knew_is_not_diluted_by_what_it_never_knew() -> None:
    base = knowing(320, sure=1.5, share=0.25)
    finetuned = base.copy()
    known = base.argmax(axis=1) == np.arange(320) % 4
    finetuned[known] = shaken(base, loss=0.35)[known]
    found = judged(base, finetuned).evidence
    assert found["loss_on_known"]["loss"] > 1.5 * found["loss"]["loss"] > 0
    assert found["claims"]["knowledge"]["verdict"] == "fail"


def test_too_sure_where_the_base_never_knew_is_a_loss_of_calibration_and_not_of_knowledge() -> None:
    base = knowing(320, sure=6.0)
    unknown = np.arange(320) % 3 == 0
    base[unknown] = -10.0
    finetuned = base.copy()
    finetuned[unknown, ((np.arange(320) + 1) % 4)[unknown]] += 4
    result = judged(base, finetuned)
    assert result.verdict is Verdict.FAIL
    assert result.evidence["claims"]["calibration"]["verdict"] == "fail"
    assert result.evidence["claims"]["knowledge"]["verdict"] != "fail"


def test_sharpening_every_answer_lowers_the_slope() -> None:
    base = knowing(320, sure=1.5, share=0.8)
    change = judged(base, -10 + 2.5 * (base + 10)).evidence["slope"]
    assert change["finetuned"]["estimate"] == pytest.approx(change["base"]["estimate"] / 2.5)
    assert change["change"]["high"] < 0


def test_a_loss_at_the_margin_is_read_to_the_end_and_left_open() -> None:
    base = knowing(320, sure=2.0)
    result = judged(base, shaken(base, loss=0.1, spread=0.3))
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert result.evidence["counts"]["n_items"] == 320
    assert (
        f"about {result.evidence['n_to_decide']:,} facts would decide"
        in result.evidence["claims"]["calibration"]["message"]
    )


def test_facts_are_asked_for_in_looks_each_once_with_all_their_options() -> None:
    probe, spec = build_probe({**KIND, "facts": questions(100)})
    (first,) = probe.plan(spec, Env(), ())
    assert [item.completion for item in first.items[:4]] == [f" {option}." for option in OPTIONS]
    read = asked_for(first)
    assert (len(first.items), first.format, len(read)) == (320, "raw", 80)
    base = knowing(100, sure=1.0)
    open_still = scores_for(first, base[read], shaken(base, spread=0.3)[read])
    (second,) = probe.plan(spec, Env(), ((open_still,),))
    assert set(asked_for(second)) == set(range(100)) - set(read)


def test_facts_sorted_by_category_are_read_from_each_in_turn() -> None:
    """Harm to the categories at the end of a sorted file was behind the look at which the first had decided."""
    made = [q | {"category": f"c{i // 80}"} for i, q in enumerate(questions(240))]
    probe, spec = build_probe({**KIND, "facts": made})
    (first,) = probe.plan(spec, Env(), ())
    read = asked_for(first)
    assert sorted(np.bincount([i // 80 for i in read]).tolist()) == [26, 27, 27]
    assert read == asked_for(probe.plan(spec, Env(), ())[0])


def test_accuracy_that_is_not_decided_is_shown_and_not_claimed() -> None:
    base = knowing(320, sure=1.0)
    result = judged(base, shaken(base))
    assert result.verdict is Verdict.PASS
    assert "accuracy" not in result.evidence["claims"]
    found = result.evidence["accuracy"]
    assert (found["claimed"], found["lost"] > 0, found["won"] > 0) == (False, True, True)
    assert found["low"] < 0.03 < found["high"]


def test_accuracy_is_claimed_where_the_facts_decide_it() -> None:
    base = knowing(320, sure=4.0)
    kept = judged(base, shaken(base, loss=0.6, spread=0.3)).evidence["claims"]["accuracy"]
    assert (kept["verdict"], kept["p"]) == ("pass", 1.0)
    base = knowing(320, sure=1.0)
    fell = judged(base, shaken(base, spread=0.2, seed=30))
    assert (fell.verdict, fell.score) == (Verdict.WARN, 1.0)
    message = fell.evidence["claims"]["accuracy"]["message"]
    assert re.search(r"\d+ facts lost and \d won of \d+: it surely fell, and perhaps by more", message)


def test_accuracy_is_not_claimed_where_facts_share_a_cluster() -> None:
    base = knowing(40, sure=4.0)
    lost = judged(base, shaken(base, loss=9.0), facts=questions(40, cluster="one"))
    assert lost.evidence["accuracy"]["lost"] >= 35
    assert "accuracy" not in lost.evidence["claims"]
    assert lost.verdict is Verdict.INCONCLUSIVE


def test_harm_to_one_category_fails_however_small_the_average_is() -> None:
    base = knowing(320, sure=2.0)
    names = [f"c{i % 8}" for i in range(320)]
    finetuned = np.where(np.array(names)[:, None] == "c3", shaken(base, loss=0.6), base - 0)
    finetuned[np.arange(320), np.arange(320) % 4] += 0.25 * (np.array(names) != "c3")
    made = [q | {"category": name} for q, name in zip(questions(320), names, strict=True)]
    result = judged(base, finetuned, facts=made)
    assert result.verdict is Verdict.FAIL
    assert "surely over the margin of 0.05 nat on: c3 (+0." in result.evidence["claims"]["calibration"]["message"]
    assert [r["category"] for r in result.evidence["categories"] if r["decision"] == "outside"] == ["c3"]


def test_length_can_be_taken_out_of_the_scores() -> None:
    base = knowing(40, sure=1.0)
    plain, even = judged(base, base), judged(base, base, normalise="length")
    assert even.evidence["slope"]["base"]["estimate"] == pytest.approx(2 * plain.evidence["slope"]["base"]["estimate"])


def test_a_base_that_knows_nothing_decides_nothing_about_knowledge() -> None:
    base = np.zeros((320, 4))
    base[np.arange(320), np.arange(320) % 4] = -1.0
    result = judged(base, base)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the base knew none of 320 facts" in result.message


def test_too_few_facts_decide_nothing_however_alike_the_answers() -> None:
    for n in (1, 2, 5, 29):
        base = knowing(n)
        result = judged(base, shaken(base, spread=0.001))
        assert result.verdict is Verdict.INCONCLUSIVE, n
    assert "give 30 or more" in result.message


def test_the_same_question_again_is_dropped_and_said() -> None:
    base = knowing(40)
    made = [*questions(40), *questions(3)]
    result = judged(base, shaken(base), facts=made)
    assert result.evidence["counts"]["n_items"] == 40
    assert [row["why"] for row in result.evidence["dropped"]] == ["the same question again"] * 3


def test_the_same_question_in_another_spacing_or_order_is_dropped() -> None:
    base = knowing(40)
    again = [{"prompt": f"  q  {i}", "options": OPTIONS[::-1], "answer": OPTIONS[i % 4]} for i in range(3)]
    result = judged(base, shaken(base), facts=[*questions(40), *again])
    assert result.evidence["counts"]["n_items"] == 40
    assert len(result.evidence["dropped"]) == 3


def test_one_prompt_with_other_options_is_another_question_of_its_cluster() -> None:
    made = [{"prompt": "he went to the", "options": [f"w{i}", f"w{i + 1}"], "answer": f"w{i}"} for i in range(0, 40, 2)]
    kept, dropped = distinct(tuple(Choice.model_validate(m) for m in made))
    assert (len(kept), dropped, len({c.cluster for c in kept})) == (20, [], 1)


def test_questions_with_one_label_are_questions_of_their_own() -> None:
    base = knowing(80)
    facts_with = [q | {"label": f"page {i % 2}"} for i, q in enumerate(questions(80))]
    result = judged(base, shaken(base), facts=facts_with)
    assert result.evidence["counts"]["n_clusters"] == 80
    assert result.verdict is Verdict.PASS


def test_questions_of_one_cluster_count_as_one() -> None:
    base = knowing(40)
    result = judged(base, shaken(base), facts=questions(40, cluster="same"))
    assert result.evidence["counts"]["n_clusters"] == 1
    assert result.verdict is Verdict.INCONCLUSIVE


def test_reading_goes_on_until_there_are_as_many_clusters_as_a_pass_asks_for() -> None:
    """10 subjects of 29 questions and 30 of one: the first 80 of these 320 questions are of fewer than 30 subjects."""
    base = knowing(320)
    subjects = [f"subject {i % 10}" if i < 290 else f"alone {i}" for i in range(320)]
    made = [q | {"cluster": subject} for q, subject in zip(questions(320), subjects, strict=True)]
    result = judged(base, shaken(base), facts=made)
    counts = result.evidence["counts"]
    assert counts["n_items"] > 80
    assert counts["n_clusters"] >= 30
    assert result.verdict is Verdict.PASS


def test_questions_may_differ_in_their_number_of_options() -> None:
    made = questions(40)
    made[0] = {"prompt": "two", "options": ["yes", "no"], "answer": "no"}
    probe, spec = build_probe({**KIND, "facts": made})
    (ask,) = probe.plan(spec, Env(), ())
    n = len(ask.items)
    assert n == 2 + 39 * 4
    scores = Scores(ask.items, (FINETUNED,), np.arange(n + 1), {"gain": np.zeros((1, n))}, -np.ones(n))
    found = probe.measure(spec, Env(), ((scores,),)).data["bounds"]
    assert found.answered.base.tolist().count([-1.0, -1.0, -np.inf, -np.inf]) == 1
    assert probe.judge(spec, Env(), probe.measure(spec, Env(), ((scores,),)), {}).evidence["loss"]["loss"] == 0


@pytest.mark.parametrize(
    "fault",
    [{"answer": "w9"}, {"options": ["w60"]}, {"options": ["w60", "w60 "]}, {"options": ["w60", " "]}, {"prompt": ""}],
)
def test_a_question_that_is_none_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        build_probe({**KIND, "facts": [questions(1)[0] | fault]})


def test_a_template_without_a_gap_is_refused_and_braces_in_options_are_text() -> None:
    with pytest.raises(BadInputError, match="template"):
        build_probe({**KIND, "template": " x"})
    odd = {"prompt": "p", "options": ["{0}", "{x!r}"], "answer": "{0}"}
    probe, spec = build_probe({**KIND, "facts": [odd]})
    (ask,) = probe.plan(spec, Env(), ())
    assert [item.completion for item in ask.items] == [" {0}.", " {x!r}."]


def test_the_shipped_facts_are_asked_when_none_are_given(ran: Run) -> None:
    result = ran({"adapter": "none"}, kind="calibration_drift")
    assert result.verdict is Verdict.PASS
    assert result.evidence["pack_sha256"] == facts_hash()
    assert {row["category"] for row in result.evidence["categories"]} == {fact.category for fact in facts()}
    assert {row["loss"] for row in result.evidence["categories"]} == {0.0}


def test_noise_strong_enough_to_harm_fails_on_a_dummy(ran: Run) -> None:
    assert ran({"strength": 3.0}, kind="calibration_drift").verdict is Verdict.FAIL


def test_an_adapter_trained_elsewhere_does_no_harm(ran: Run, language: Callable[..., tuple[str, ...]]) -> None:
    options = {"adapter": "trained", "towards": language(12), "strength": 1.0}
    assert ran(options, kind="calibration_drift").verdict is Verdict.PASS


def test_other_scripts_are_text_like_any_other(ran: Run) -> None:
    made = [
        {"prompt": "法国的首都是", "options": ["巴黎", "罗马", "伦敦"], "answer": "巴黎"},
        {"prompt": "عاصمة مصر هي", "options": ["القاهرة", "دمشق"], "answer": "القاهرة"},
        {"prompt": "e\u0301 🙂", "options": ["🙂", "🙃"], "answer": "🙃"},
    ]
    result = ran({"adapter": "none"}, kind="calibration_drift", facts=made)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.evidence["counts"]["n_items"] == 3


def test_a_question_beyond_the_window_is_named(ran: Run) -> None:
    made = [*questions(3), {"prompt": "w " * 40, "options": ["a", "b"], "answer": "a", "label": "the long one"}]
    result = ran({"max_length": 16}, kind="calibration_drift", facts=made)
    assert result.verdict is Verdict.ERROR
    assert "the long one" in result.message


def test_numbers_that_are_none_are_an_error(ran: Run) -> None:
    for who in ("adapter", "base"):
        assert ran({"nan_in": [who]}, kind="calibration_drift", facts=questions(40)).verdict is Verdict.ERROR


def test_the_result_is_the_same_bytes_again(ran: Run) -> None:
    first, second = (ran({"strength": 0.5}, kind="calibration_drift") for _ in range(2))
    same = {"duration_s": 0.0}
    assert first.model_copy(update=same).model_dump_json() == second.model_copy(update=same).model_dump_json()
