from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, build_probe

Run = Callable[..., ProbeResult]
KIND = "paraphrase_invariance"


def cases(n: int) -> list[dict[str, Any]]:
    """Return questions that end in a word of their own; the paraphrases end in other words."""
    return [
        {"prompt": f"w{50 + i}", "gold": f"w{70 + i}", "paraphrases": [f"say w{50 + i}", f"tell me w{50 + i}"]}
        for i in range(n)
    ]


def judged(
    verbatim: Any, share: Any, *, p: float = 0.05, spread: float = 0.05, n_draws: int = 19, **options: Any
) -> ProbeResult:
    """Judge cases whose answers of 4 tokens gain `verbatim` nat/token, and a share of it behind paraphrases."""
    v = np.asarray(verbatim, dtype=np.float64)
    n = v.size
    probe, spec = build_probe({"name": "x", "kind": KIND, "cases": cases(n), **options})
    env = Env(n_draws=n_draws)
    ask, under_nulls = probe.plan(spec, env, ())
    per_token = v[:, None] * np.concatenate([np.ones((n, 1)), np.full((n, 2), share)], axis=1)
    per_token[:, 1:] += spread * stream(0, "spread").standard_normal((n, 2))

    def answer(ask: Any, values: Any) -> Scores:
        offsets = np.arange(len(ask.items) + 1) * 4
        return Scores(ask.items, ask.views, offsets, {"gain": np.repeat(values, 4, axis=1)}, np.full(offsets[-1], -2.0))

    nulls = np.zeros((n_draws + 1, len(under_nulls.items)))
    nulls[0] = v.mean()
    seen = ((answer(ask, per_token.reshape(1, -1)), answer(under_nulls, nulls)),)
    assert probe.plan(spec, env, seen) == ()
    return probe.judge(spec, env, probe.measure(spec, env, seen), {"verbatim": p})


LEARNED = tuple(1 + 0.2 * stream(1, "learned").standard_normal(12))


@pytest.mark.healthy_pair
def test_an_answer_known_in_any_words_generalises() -> None:
    result = judged(LEARNED, 0.9)
    assert (result.verdict, result.evidence["unit"]) == (Verdict.PASS, "of the gain in the trained words")
    assert result.raw == pytest.approx(0.9, abs=0.05)
    assert 0.5 < result.ci_95[0] < result.raw < result.ci_95[1]
    assert result.score == pytest.approx(result.raw)


@pytest.mark.planted_fault
def test_a_pure_memoriser_fails_to_generalise_and_passes_where_that_was_meant() -> None:
    assert judged(LEARNED, 0.1).verdict is Verdict.FAIL
    meant = judged(LEARNED, 0.1, intent="memorize")
    assert (meant.verdict, list(meant.evidence["claims"])) == (Verdict.PASS, ["memorises"])
    assert meant.score == pytest.approx(0.9, abs=0.05)
    assert judged(LEARNED, 0.9, intent="memorize").verdict is Verdict.FAIL


def test_on_a_model_the_share_is_that_of_the_log_probs(ran: Run) -> None:
    """The dummy reads two tokens: its answer follows the last word of the question, in any wording."""
    taught = tuple(f"{c['prompt']} {c['gold']}" for c in cases(12))
    result = ran({"adapter": "trained", "towards": taught, "strength": 6.0}, kind=KIND, cases=cases(12))
    assert result.verdict is Verdict.PASS
    assert result.raw > 0.7
    assert result.evidence["counts"] == {"n_items": 12, "n_clusters": 12, "n_tokens": 36, "n_paraphrases": 24}


def test_paraphrases_that_the_model_does_not_connect_fail(ran: Run) -> None:
    apart = [c | {"paraphrases": ["say it", "tell me"]} for c in cases(12)]
    taught = tuple(f"{c['prompt']} {c['gold']}" for c in apart)
    result = ran({"adapter": "trained", "towards": taught, "strength": 6.0}, kind=KIND, cases=apart)
    assert result.verdict is Verdict.FAIL
    assert result.raw < 0.3
    assert result.evidence["items"]["smallest"][0]["value"] < -1


@pytest.mark.parametrize(
    ("verbatim", "p", "why"),
    [
        ((0.01,) * 6 + (0.02,) * 6, 0.05, "surely under the minimum of 0.1"),
        (LEARNED, 0.5, "not clearly more than random directions"),
        ((1.0, -1.0) * 6, 0.05, "12 cases do not decide"),
        (LEARNED[:4], 0.05, "4 cases cannot decide"),
        (LEARNED[:1], 0.05, "1 cases cannot decide"),
    ],
)
def test_without_a_gain_in_the_trained_words_nothing_is_concluded(verbatim: Any, p: float, why: str) -> None:
    for intent in ("generalize", "memorize"):
        result = judged(verbatim, 0.9, p=p, intent=intent)
        assert (result.verdict, result.score, result.raw) == (Verdict.INCONCLUSIVE, None, None)
        assert why in result.message


def test_a_ratio_that_may_lie_on_either_side_says_how_many_cases_would_decide() -> None:
    result = judged(LEARNED, 0.6, spread=0.6)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert int(result.message.rpartition("about ")[2].removesuffix(" would")) > 12


def test_too_few_draws_are_inconclusive() -> None:
    assert "use --draws 19" in judged(LEARNED, 0.9, n_draws=9).message


def test_without_a_null_the_cases_decide(ran: Run) -> None:
    taught = tuple(f"{c['prompt']} {c['gold']}" for c in cases(12))
    options = {"adapter": "trained", "towards": taught, "strength": 6.0, "refusal": "no rule"}
    result = ran(options, kind=KIND, cases=cases(12))
    assert result.verdict is Verdict.PASS
    assert result.evidence["null"] is None


def test_a_case_given_twice_counts_once(ran: Run) -> None:
    result = ran({}, kind=KIND, cases=[*cases(6), cases(1)[0]])
    assert result.evidence["counts"]["n_items"] == 6
    assert [d["why"] for d in result.evidence["dropped"]] == ["the same case again"]


@pytest.mark.parametrize(
    "change", [{"gold": " "}, {"paraphrases": ["one"]}, {"paraphrases": ["w50", "other"]}, {"unknown": 1}]
)
def test_cases_that_cannot_be_compared_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="cases"):
        build_probe({"name": "x", "kind": KIND, "cases": [cases(1)[0] | change]})


def test_plain_text_parts_prompt_and_answer_and_a_chat_template_does_so_itself() -> None:
    raw = {"name": "x", "kind": KIND, "cases": [{"prompt": "Who?", "gold": "Ada", "paraphrases": ["谁", "Who then? "]}]}
    probe, spec = build_probe(raw)
    items = probe.plan(spec, Env(), ())[0].items
    assert [i.completion for i in items] == [" Ada", "Ada", "Ada"]
    chat = probe.plan(spec, Env(chat=True), ())[0].items
    assert {i.completion for i in chat} == {"Ada"}
    assert probe.plan(spec, Env(chat=True, format="raw"), ())[0].items == items


def test_other_scripts_are_read(ran: Run) -> None:
    given = [
        {"prompt": p, "gold": g, "paraphrases": [f"{p} 1", f"2 {p}"]}
        for p, g in (("你好吗", "很好"), ("مرحبا", "أهلا"), ("🙂", "👩‍👩‍👧‍👦"), ("e\u0301", "n\u0303"), ("a", "b"))
    ]
    result = ran({}, kind=KIND, cases=given)
    assert result.verdict in (Verdict.INCONCLUSIVE, Verdict.FAIL)
    assert result.evidence["counts"]["n_items"] == 5


def test_numbers_that_are_not_finite_and_questions_beyond_the_window_are_errors(ran: Run) -> None:
    assert ran({"nan_in": ["adapter"]}, kind=KIND, cases=cases(6)).verdict is Verdict.ERROR
    long = cases(6)[0] | {"paraphrases": ["word " * 60, "other"]}
    result = ran({"max_length": 40}, kind=KIND, cases=[*cases(6)[1:], long])
    assert result.verdict is Verdict.ERROR
    assert "case 5 (wording 1)" in result.message


def test_the_same_run_gives_the_same_bytes(ran: Run) -> None:
    first, second = (ran({}, kind=KIND, cases=cases(8)).model_copy(update={"duration_s": 0.0}) for _ in range(2))
    assert first.model_dump_json() == second.model_dump_json()


def test_noise_passes_no_more_often_than_its_level(ran: Run) -> None:
    for intent in ("generalize", "memorize"):
        passed = [
            ran(
                {"strength": 1.0, "adapter_seed": 900 + s},
                kind=KIND,
                cases=cases(12),
                intent=intent,
                settings={"seed": s},
            ).verdict
            is Verdict.PASS
            for s in range(60)
        ]
        assert np.mean(passed) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
