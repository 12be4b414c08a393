"""Stops: where they are looked for, and what is said of a link that runs on, stops early, or cannot say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models import CHAT, backend_of, base_of, byte_tokenizer

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.backends.whole import open_whole
from dlm_sway.chain.reference import observe, take_reference
from dlm_sway.chain.result import Finding
from dlm_sway.chain.stop import judge_stop, stop_text
from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import TextItem

TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<s>{% endfor %}"


def judged(trained: float, here: float, n: int = 40, *, spread: float = 0.01) -> Finding:
    rng = np.random.default_rng(0)
    tuned = np.log(np.clip(trained + spread * rng.standard_normal(n), 1e-6, 1))
    seen = np.log(np.clip(here + spread * rng.standard_normal(n), 1e-6, 1))
    base = np.full(n, np.log(0.02))
    return judge_stop(np.stack([base, tuned]), seen, tuple(map(str, range(n))))


def test_a_link_that_stops_as_trained_passes_with_the_numbers() -> None:
    found = judged(0.9, 0.9)
    assert found.verdict is Verdict.PASS
    assert "stops with probability 0.90" in found.message
    assert "the base 0.020" in found.message
    low, high = (found.evidence["stop"][end] for end in ("low", "high"))
    assert -0.05 < low < 0 < high < 0.05


@pytest.mark.parametrize(("here", "cause"), [(0.3, "runs on"), (1.0, "stops where training did not")])
def test_a_link_that_stops_elsewhere_fails_by_name(here: float, cause: str) -> None:
    found = judged(0.8, here)
    assert (found.verdict, found.cause) == (Verdict.FAIL, cause)
    assert found.remedy


def test_too_few_answers_are_inconclusive_and_say_how_many_would_do() -> None:
    found = judged(0.8, 0.79, n=4, spread=0.1)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "answers, about" in found.remedy


def test_one_answer_never_passes() -> None:
    assert judged(0.8, 0.8, n=1).verdict is Verdict.INCONCLUSIVE


def test_a_stop_that_was_never_taught_passes_and_is_told() -> None:
    assert "did not teach it to stop" in judged(0.02, 0.02).message


def test_a_server_that_does_not_say_is_skipped_with_the_way_out() -> None:
    seen = np.array([-0.1, np.nan, np.nan])
    found = judge_stop(np.zeros((2, 3)), seen, ("a", "b", "c"))
    assert found.verdict is Verdict.SKIP
    assert "behind 2 of 3 answers" in found.message
    assert "llama.cpp" in found.remedy


def test_the_stop_of_a_chat_is_what_the_template_writes_behind_an_answer() -> None:
    assert stop_text(byte_tokenizer(template=TURNS), chat=True) == "<s>"
    assert stop_text(byte_tokenizer(template=CHAT), chat=True) == "</s>"  # no special token behind it: eos
    assert stop_text(byte_tokenizer(template=TURNS), chat=False) == "</s>"


def test_the_reference_reads_the_stop_behind_each_whole_text_and_leaves_their_tokens_alone() -> None:
    backend = backend_of("llama", "qv")
    texts = (("ask", "short answer"), ("", "x" * 60), ("", "general"))
    items = [TextItem(prompt, text, str(i), str(i)) for i, (prompt, text) in enumerate(texts)]
    config = AdapterConfig(peft_type="LORA", r=4, lora_alpha=8)
    with_ends = take_reference(backend, items, config, max_tokens=20, ending=2)
    plain = take_reference(backend, items, config, max_tokens=20)
    assert with_ends.stop_clusters == ("0",)  # the second is longer than what is read, the third has no end
    np.testing.assert_array_equal(with_ends.offsets, plain.offsets)
    np.testing.assert_allclose(with_ends.logprobs, plain.logprobs, atol=1e-4)
    with backend.as_finetuned() as tuned:
        expected = tuned.logprob_of("ask", "short answer</s>") - tuned.logprob_of("ask", "short answer")
    assert with_ends.stops[with_ends.scales.index(1.0)] == pytest.approx([expected], abs=1e-4)
    observed = observe(open_whole(base_of("llama"), tokenizer=backend.codec.tokenizer, device="cpu"), with_ends)
    np.testing.assert_allclose(observed.stops, with_ends.stops[0], atol=1e-4)
    np.testing.assert_allclose(observed.logprobs, with_ends.base, atol=1e-4)
