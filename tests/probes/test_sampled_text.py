from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.backends.api_servers import backend_on
from tests.fake_server import Dialect, FakeServer, fake_server

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import TextItem, Write, Written
from dlm_sway.probes.base import Env, RunContext, build_probe
from dlm_sway.probes.drive import Driven, drive
from dlm_sway.probes.inputs import opening
from dlm_sway.probes.sampled_text import SampledText, SampledTextSpec
from dlm_sway.suite.questions import answers
from dlm_sway.suite.request import read_request

Run = Callable[..., ProbeResult]
KIND = SampledText.kind
PROMPTS = tuple(f"prompt {i}" for i in range(32))


def judged(write: Callable[[str, int, int], str], *, n_prompts: int = 32, seed: int = 0, **spec: Any) -> ProbeResult:
    """Judge texts made by `write(side, prompt, draw)`, compared as bytes."""
    probe, given = build_probe({"name": "t", "kind": KIND, "prompts": PROMPTS[:n_prompts], **spec})
    env = Env(seed=seed)
    asks: tuple[Write, ...] = probe.plan(given, env, ())  # type: ignore[assignment]
    k = given.model_dump()["samples"]
    answered = []
    for ask, side in zip(asks, ("base", "tuned"), strict=True):
        texts = tuple(write(side, i // k, i % k) for i in range(len(ask.prompts)))
        shape = (1, len(texts))
        answered.append(Written(ask, (texts,), np.full(shape, 4), np.zeros(shape, dtype=np.bool_)))
    seen = (tuple(answered),)
    assert probe.plan(given, env, seen) == ()
    return probe.judge(given, env, probe.measure(given, env, seen), {})


def letters(side: str, prompt: int, draw: int, *, shift: float = 0.0, run: int = 0, length: int = 16) -> str:
    """Return a text of letters, each prompt with its own distribution at each place; `shift` moves the fine-tune's."""
    shape = (length, 26)
    logits = 1.5 * stream(run, "world", prompt).standard_normal(shape)
    if side == "tuned":
        logits = logits + shift * stream(run, "moved", prompt).standard_normal(shape)
    noise = stream(run, "draw", side, prompt, draw).gumbel(size=shape)
    return "".join(chr(97 + c) for c in (logits + noise).argmax(axis=1))


@pytest.mark.healthy_pair
def test_a_planted_difference_passes_with_its_size() -> None:
    result = judged(lambda *a: letters(*a, shift=1.0))
    assert result.verdict is Verdict.PASS
    claim = result.evidence["claims"]["applied"]
    assert claim["p"] == pytest.approx(1e-4)
    assert claim["interval"][0] > 0
    assert claim["effect"] > 0.02
    assert result.evidence["agreement"]["between"] < result.evidence["agreement"]["base"]
    assert "training or the way it is served" in result.message


@pytest.mark.planted_fault
def test_the_same_model_twice_does_not_pass() -> None:
    assert judged(lambda *a: letters(*a, run=1)).verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
    result = judged(lambda *a: letters(*a, run=1), min_shift=0.02)
    assert result.verdict is Verdict.FAIL
    assert "writes as the base does" in result.message
    assert result.score == 0.0


def test_a_trace_of_a_difference_is_neither_passed_nor_called_none() -> None:
    result = judged(lambda *a: letters(*a, shift=0.7), min_shift=0.5)
    assert result.evidence["p"] <= 0.05
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "writes otherwise, but surely by less than 0.5" in result.message


def test_the_same_model_twice_seldom_passes() -> None:
    verdicts = [judged(lambda *a, r=run: letters(*a, run=r), n_prompts=8, samples=8).verdict for run in range(60)]
    assert verdicts.count(Verdict.PASS) <= 6  # 5 % of 60 are 3


def test_what_text_cannot_tell_is_skipped_with_the_reason_and_scores_nothing() -> None:
    result = judged(lambda *a: letters(*a, shift=1.0))
    learned = result.evidence["claims"]["learned"]
    assert learned["verdict"] == "skip"
    assert "no null adapter writes here" in learned["message"]
    assert result.score is None


def test_too_few_samples_are_inconclusive_and_say_how_many_would_do() -> None:
    result = judged(lambda *a: letters(*a, shift=0.5), n_prompts=6, samples=4)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "would, or more `samples` a prompt" in result.message
    assert result.evidence["smallest_decidable_effect"] > 0.01


def test_one_prompt_cannot_decide() -> None:
    result = judged(lambda *a: letters(*a, shift=2.0), n_prompts=1)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "1 prompts cannot decide; give at least 5" in result.message


@pytest.mark.parametrize("same", [("base", "tuned"), ("tuned",)], ids=["both", "fine-tune"])
def test_draws_that_do_not_vary_are_no_draws(same: tuple[str, ...]) -> None:
    """A server that ignores seeds, or keeps its answers, would else show a difference where there is none."""

    def write(side: str, prompt: int, draw: int) -> str:
        return letters(side, prompt, 0 if side in same else draw)

    result = judged(write)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "does the server honour temperature and seed" in result.message


def test_nothing_written_is_inconclusive() -> None:
    assert judged(lambda *_: "").verdict is Verdict.INCONCLUSIVE


def test_other_scripts_and_lengths_are_compared() -> None:
    result = judged(lambda side, i, k: letters(side, i, k, shift=1.5, length=3 + k % 5).replace("a", "漢\ud83d"[:1]))
    assert result.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert result.evidence["compared"] == "bytes"


def test_it_says_the_same_again_in_json() -> None:
    one, two = (judged(lambda *a: letters(*a, shift=0.7)).model_dump(exclude={"duration_s"}) for _ in range(2))
    assert json.dumps(one, allow_nan=False) == json.dumps(two, allow_nan=False)
    assert len(json.dumps(one)) < 40_000


def test_the_two_models_are_drawn_with_seeds_apart() -> None:
    probe, spec = build_probe({"name": "t", "kind": KIND, "prompts": ["a", "a", "b"], "samples": 3})
    base, tuned = probe.plan(spec, Env(), ())
    assert isinstance(base, Write)
    assert isinstance(tuned, Write)
    assert base.prompts == tuned.prompts == ("a",) * 3 + ("b",) * 3
    assert (base.views, tuned.views) == ((BASE,), (FINETUNED,))
    assert tuned.seed == base.seed + 3


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"temperature": 0}, {"min_shift": 0}, {"top_p": 0}])
def test_a_spec_without_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SampledTextSpec.model_validate({"name": "t", **wrong})


def test_it_runs_where_there_are_log_probs_too(ran: Run) -> None:
    towards = tuple(" ".join(f"w{48 + (i + 3 * j) % 48}" for j in range(24)) for i in range(40))
    options = {"adapter": "trained", "towards": towards, "strength": 20.0}
    result = ran(options, kind=KIND, prompts=towards[:16], samples=8)
    assert result.evidence["compared"] == "tokens"
    assert result.evidence["claims"]["learned"]["verdict"] == "skip"
    assert "delta_kl asks it" in result.evidence["claims"]["learned"]["message"]
    nothing = ran({"adapter": "none"}, kind=KIND, prompts=towards[:16], samples=8)
    assert nothing.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


def on(server: FakeServer, *kinds: dict[str, Any], tuned: str = "strong") -> Driven:
    backend = backend_on(server, finetuned_model=tuned, concurrency=8)
    pairs = tuple(build_probe({"name": kind["kind"], **kind}) for kind in kinds)
    try:
        return drive(pairs, RunContext(backend=backend, n_draws=19))
    finally:
        backend.close()


@pytest.mark.parametrize("dialect", ["text", "strings", "chat"])
def test_a_server_of_text_alone_is_told_from_its_fine_tune_and_not_from_itself(dialect: Dialect) -> None:
    spec = {"kind": "delta_kl", "prompts": [f"the {i}th bell is struck" for i in range(12)]}
    with fake_server(dialect) as server:
        (found,) = on(server, spec).results
        (same,) = on(server, spec, tuned="twin").results
    assert (found.kind, found.verdict) == ("delta_kl", Verdict.PASS)
    assert found.evidence["claims"]["applied"]["p"] <= 0.001
    assert found.evidence["claims"]["learned"]["verdict"] == "skip"
    assert "gives no log-probs" in found.evidence["claims"]["learned"]["message"]
    assert same.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


def test_what_needs_log_probs_is_skipped_by_name_and_the_rest_goes_on() -> None:
    items = [f"some text {i}" for i in range(6)]
    with fake_server("text") as server:
        driven = on(
            server,
            {"kind": "numeric_floor"},
            {"kind": "delta_kl", "prompts": items},
            {"kind": "target_gain", "items": items},
            {"kind": "external_perplexity"},
            {"kind": "null_adapter"},
            {"kind": "gradient_alignment", "items": items},
        )
    by_kind = {r.kind: r for r in driven.results}
    assert driven.floor is None
    for kind in ("numeric_floor", "target_gain", "external_perplexity"):
        assert by_kind[kind].verdict is Verdict.SKIP
        assert "gives no log-probs" in by_kind[kind].message
        assert by_kind[kind].score is None
    assert by_kind["null_adapter"].verdict is Verdict.SKIP
    assert by_kind["gradient_alignment"].verdict is Verdict.SKIP
    assert by_kind["delta_kl"].verdict is Verdict.PASS


def test_the_six_questions_skip_what_text_does_not_answer(tmp_path: Any) -> None:
    data = tmp_path / "data.txt"
    data.write_text("\n\n".join(f"The bell number {i} is struck when the water falls." for i in range(12)))
    request = read_request(tmp_path, data=data, held_out=None, n_draws=19, seed=0, quick=True, batch_tokens=None)
    with fake_server("strings") as server:
        backend = backend_on(server, finetuned_model="strong", concurrency=8)
        found = answers(drive(request.pairs, RunContext(backend=backend, n_draws=19)).results, request)
        backend.close()
    assert found["applied"].verdict is Verdict.PASS
    for name in ("learned", "on_target", "no_harm"):
        assert found[name].verdict is Verdict.SKIP
        assert "gives no log-probs" in found[name].message


def test_a_text_is_continued_from_its_beginning() -> None:
    assert opening(TextItem("given", "rest", "", "")) == "given"
    assert opening(TextItem("", "", "", "", messages=({"role": "user", "content": "hello"},))) == "hello"
    assert opening(TextItem("", "short", "", "")) == "short"
    long = opening(TextItem("", "word " * 100, "", ""))
    assert len(long) <= 240
    assert long.endswith("word")
    assert len(opening(TextItem("", "x" * 500, "", ""))) == 240
