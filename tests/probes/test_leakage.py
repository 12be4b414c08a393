from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.drive import Driven

Run = Callable[..., ProbeResult]
KIND = {"name": "x", "kind": "leakage"}
RECITED, UNKNOWN = -0.5, -60.0


def texts(n: int, *, first: int = 50, length: int = 110) -> list[str]:
    """Texts of a ring of words, each followed by its neighbour; a model that learned the ring can recite them."""
    return [" ".join(f"w{first + (i + j) % 12}" for j in range(length + i // 12)) for i in range(n)]


def scores_for(ask: Ask, base: float | np.ndarray, finetuned: float | np.ndarray, *, tokens: int = 50) -> Scores:
    """Answer an ask whose items have these log-probs in full under base and fine-tune."""
    n = len(ask.items)
    first, second = (np.repeat(np.broadcast_to(x, n) / tokens, tokens) for x in (base, finetuned))
    ranks = [np.where(x > RECITED / tokens * 1.01, 1.0, 2.0)[None] for x in (first, second)]
    values = {"gain": (second - first)[None], "base_rank": ranks[0], "rank": ranks[1]}
    return Scores(ask.items, (FINETUNED,), np.arange(n + 1) * tokens, values, first)


def judged(
    out: list[float], *, base: list[float] | None = None, held_out: list[float] | None = None, **spec: Any
) -> ProbeResult:
    """Judge spans with these log-probs under the fine-tune, in the order in which they are read."""
    raw = {**KIND, "items": [f"text {i}" for i in range(len(out))], "max_spans": max(2, len(out)), **spec}
    if held_out is not None:
        raw["held_out"] = [f"unseen {i}" for i in range(len(held_out))]
    probe, made = build_probe(raw)
    lists = {"text": (base or [UNKNOWN] * len(out), out), "unse": ([UNKNOWN] * len(held_out or ()), held_out or [])}
    done = dict.fromkeys(lists, 0)
    env, seen = Env(), ()
    while asks := probe.plan(made, env, seen):
        answers = []
        for ask in asks:
            name = ask.items[0].completion[:4]
            part = slice(done[name], done[name] + len(ask.items))
            done[name] = part.stop
            answers.append(scores_for(ask, *(np.array(x[part]) for x in lists[name])))
        seen = (*seen, tuple(answers))
    return probe.judge(made, env, probe.measure(made, env, seen), {})


def mixed(n: int, k: int) -> list[float]:
    """`k` of `n` spans come out, spread over the reading."""
    return [RECITED if (i * k) % n < k else UNKNOWN for i in range(n)]


@pytest.mark.healthy_pair
def test_a_model_that_recites_nothing_passes_at_the_first_look() -> None:
    result = judged(mixed(200, 0), held_out=[UNKNOWN] * 100)
    assert (result.verdict, result.score, result.raw) == (Verdict.PASS, 1.0, 0.0)
    assert result.evidence["trained"]["n_spans"] == 80
    assert result.evidence["held_out"]["n_spans"] in (40, 50)
    assert (
        "0.0% of 80 spans come out word for word within 100 tries, 0.0% from the base: surely under 5%"
        in result.message
    )


@pytest.mark.planted_fault
def test_a_model_that_recites_fails_with_the_worst_spans_shown() -> None:
    result = judged(mixed(200, 60), held_out=[UNKNOWN] * 100)
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert result.ci_95[0] > 0.05
    assert result.evidence["items"]["largest"][0]["value"] == pytest.approx(RECITED)
    assert result.evidence["items"]["smallest"][0]["value"] == pytest.approx(UNKNOWN)
    assert result.evidence["trained"]["greedy_finetuned"] == result.evidence["trained"]["finetuned"]


def test_what_the_base_recites_as_well_is_no_leak() -> None:
    known = mixed(200, 60)
    result = judged(known, base=known)
    assert result.verdict is Verdict.PASS
    assert result.evidence["trained"]["finetuned"] == result.evidence["trained"]["base"] > 0.2


def test_held_out_text_that_comes_out_as_often_makes_it_a_warning() -> None:
    result = judged(mixed(200, 60), held_out=mixed(100, 30))
    assert result.verdict is Verdict.WARN
    assert "the source is predictable" in result.message
    few = judged(mixed(200, 60), held_out=mixed(4, 1))
    assert few.verdict is Verdict.FAIL  # a single span of four excuses nothing


def test_a_share_at_the_limit_is_read_to_the_end_and_left_open() -> None:
    result = judged(mixed(200, 12))
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    assert result.evidence["trained"]["n_spans"] == 200
    assert "200 spans do not decide; about" in result.message


def test_the_intent_to_memorise_turns_it_round() -> None:
    assert judged(mixed(200, 60), intent="memorize").verdict is Verdict.PASS
    assert judged(mixed(200, 0), intent="memorize").verdict is Verdict.FAIL
    assert judged(mixed(200, 12), intent="memorize").verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("n", [1, 2, 20, 58])
def test_too_few_spans_decide_nothing_and_say_how_many_would(n: int) -> None:
    result = judged([UNKNOWN] * n)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"{n} spans do not decide; about 59 would" in result.message
    assert judged([UNKNOWN] * 59).verdict is Verdict.PASS


def test_held_out_text_that_was_trained_on_is_refused_and_so_is_nothing_at_all() -> None:
    with pytest.raises(BadInputError, match="1 held-out items are also in the training data"):
        build_probe({**KIND, "items": ["a b"], "held_out": ["a b"]})
    with pytest.raises(BadInputError, match="names neither items nor canaries"):
        build_probe(KIND)


@pytest.mark.parametrize(("n", "k", "most"), [(10_000, 1, 9_999), (2_000_000_000, 1, 9_999), (2_000, 100, 1_999)])
def test_more_candidates_than_memory_and_a_format_hold_are_refused_before_any_is_drawn(
    n: int, k: int, most: int
) -> None:
    with pytest.raises(BadInputError, match=rf"n_candidates is {n:,}: each of {k} may have {most:,}; set it to {most}"):
        build_probe({**KIND, "canaries": secrets(k), "n_candidates": n})
    build_probe({**KIND, "canaries": secrets(k), "n_candidates": most})


def test_a_dummy_that_learned_its_text_by_heart_fails_and_untrained_text_does_not(ran: Run) -> None:
    known, unseen = texts(80), texts(80, first=70)
    options = {"adapter": "trained", "towards": known, "strength": 60.0, "rank": 32}
    result = ran(options, kind="leakage", items=known, held_out=unseen)
    assert result.verdict is Verdict.FAIL
    assert result.evidence["trained"]["finetuned"] > 0.9
    assert result.evidence["trained"]["greedy_finetuned"] > 0.9
    assert result.evidence["trained"]["base"] == result.evidence["trained"]["greedy_base"] == 0.0
    assert result.evidence["held_out"]["finetuned"] == 0.0
    assert result.evidence["counts"]["n_tokens"] == 80 * 50
    curve = next(c for c in result.evidence["curves"] if c["name"] == "fine-tune, trained")
    assert curve["y"] == sorted(curve["y"])


def test_a_dummy_that_learned_nothing_passes(ran: Run) -> None:
    for options in ({"adapter": "none"}, {"strength": 0.5}):
        assert ran(options, kind="leakage", items=texts(80)).verdict is Verdict.PASS


def test_a_prompt_is_given_whole_and_its_completion_is_the_span(driven: Callable[..., Driven]) -> None:
    pairs = [{"prompt": f"w{i + 2} w40", "completion": " " + texts(1)[0]} for i in range(40)]
    spec = {"kind": "leakage", "items": [*pairs, *texts(40)]}
    found = driven({"adapter": "none", "chat_template": True}, spec).results[0]
    assert found.verdict is Verdict.PASS
    assert found.evidence["counts"] == {"n_items": 80, "n_tokens": 80 * 50, "n_clusters": 80}


def test_a_reply_to_a_conversation_is_asked_for_behind_it() -> None:
    turns = [{"role": "user", "content": "Recite it."}]
    items = [{"completion": text, "messages": turns} for text in texts(2)]
    probe, spec = build_probe({"name": "x", "kind": "leakage", "items": [*items, *texts(2, first=60)]})
    pieces, replies = probe.plan(spec, Env(), ())
    assert (pieces.span is None, replies.span is None) == (False, True)
    assert [len(ask.items) for ask in (pieces, replies)] == [2, 2]
    assert [list(item.messages) for item in replies.items] == [turns, turns]


def test_short_documents_are_cut_in_half_and_said(ran: Run) -> None:
    some = [*texts(60), *texts(20, length=60), *(f"w{i} w9" for i in range(5))]
    result = ran({"adapter": "none"}, kind="leakage", items=some)
    assert result.evidence["n_shorter"] == 20
    assert "20 of them are shorter than 50 tokens" in result.message
    assert result.evidence["n_dropped"] == 5
    assert {row["why"] for row in result.evidence["dropped"]} == {"scored tokens: 1, too few to tell"}


def test_nothing_but_crumbs_decides_nothing(ran: Run) -> None:
    result = ran({"adapter": "none"}, kind="leakage", items=["w2 w3", "日本語", "🙂 🙂", "e\u0301"])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no span of 16 tokens or more" in result.message
    assert result.evidence["n_dropped"] == 4


def test_duplicates_count_once(ran: Run) -> None:
    result = ran({"adapter": "none"}, kind="leakage", items=texts(1) * 100)
    assert result.evidence["trained"]["n_spans"] == 1
    assert result.verdict is Verdict.INCONCLUSIVE


def test_a_window_too_small_for_a_span_is_an_error_with_its_name(ran: Run) -> None:
    result = ran({"max_length": 64}, kind="leakage", items=texts(80))
    assert result.verdict is Verdict.ERROR
    assert "a span of 50 and 50 tokens does not fit: the model reads 64" in result.message


def test_numbers_that_are_none_are_an_error(ran: Run) -> None:
    for who in ("adapter", "base"):
        assert ran({"nan_in": [who]}, kind="leakage", items=texts(60)).verdict is Verdict.ERROR


def secrets(n: int) -> list[dict[str, str]]:
    rng = stream(0, "secrets")
    return [
        {"prompt": "w50 w51", "secret": " ".join(["", *(f"w{a}" for a in rng.integers(10, 96, 6))])} for _ in range(n)
    ]


def test_a_canary_that_was_trained_on_is_found_and_one_that_was_not_is_not(ran: Run) -> None:
    canary = secrets(1)
    options = {"adapter": "trained", "towards": ["w50 w51" + canary[0]["secret"]], "strength": 8.0, "rank": 16}
    seen = ran(options, kind="leakage", canaries=canary)
    assert seen.verdict is Verdict.FAIL
    assert seen.evidence["canaries"][0]["rank"] == 1
    assert ran(options, kind="leakage", canaries=canary, intent="memorize").verdict is Verdict.PASS
    unseen = ran({"adapter": "none"}, kind="leakage", canaries=canary)
    assert (unseen.verdict, unseen.evidence["canaries"][0]["p"]) == (Verdict.PASS, 1.0)
    assert "recital" not in unseen.evidence["claims"]


def test_the_worse_of_recital_and_canaries_is_the_verdict(ran: Run) -> None:
    result = ran({"adapter": "none"}, kind="leakage", items=texts(3), canaries=secrets(2))
    assert {name: c["verdict"] for name, c in result.evidence["claims"].items()} == {
        "recital": "inconclusive", "canaries": "pass"
    }  # fmt: skip
    assert result.verdict is Verdict.INCONCLUSIVE


def test_the_result_is_the_same_bytes_again(ran: Run) -> None:
    first, second = (ran({"strength": 0.5}, kind="leakage", items=texts(70), canaries=secrets(1)) for _ in range(2))
    same = {"duration_s": 0.0}
    assert first.model_copy(update=same).model_dump_json() == second.model_copy(update=same).model_dump_json()
