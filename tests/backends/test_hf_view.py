"""A view of a Hugging Face model: long texts, batches, order, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import ARCHITECTURES, adapter_of, backend_of, base_of, open_backend, save_base

from dlm_sway.backends import hf_view, windows
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.scoring import TokenDist
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.generate import generate
from dlm_sway.engine.run import Engine

PROMPTS = ["the bell", "a", "", "below the line of the bell", "a", "when the water", "Ebbe", "潮"]
LONG = "the water falls below the line; " * 12


def dense(dist: TokenDist) -> np.ndarray:
    out = np.full(dist.vocab_size, np.nan)
    out[dist.token_ids] = dist.logprobs
    return out


@torch.inference_mode()
def direct(backend: Any, ids: np.ndarray) -> np.ndarray:
    """Log-probs of all tokens but the first, straight from the model."""
    row = torch.from_numpy(ids)[None]
    logp = backend.model(input_ids=row).logits[0, -len(ids) : -1].log_softmax(-1)
    return logp.gather(1, row[0, 1:, None])[:, 0].numpy()


@pytest.mark.parametrize("kind", ["qv", "prompt", "prefix", "saved-head"])
def test_a_text_is_scored_as_the_model_scores_it(kind: str) -> None:
    backend = backend_of("llama", kind)
    with backend.as_finetuned() as view:
        rolling = view.rolling_logprob("the bell is struck")
        np.testing.assert_allclose(rolling.logprobs, direct(backend, rolling.token_ids), atol=1e-5)


def test_a_long_text_is_scored_in_windows_each_token_with_its_context() -> None:
    backend = backend_of("llama", "qv")
    limit = backend.codec.max_length
    with backend.as_finetuned() as view:
        rolling = view.rolling_logprob(LONG)
        ids = rolling.token_ids
        assert len(ids) > 2 * limit
        np.testing.assert_allclose(rolling.logprobs[:limit], direct(backend, ids[: limit + 1]), atol=1e-5)
        for i in (limit + 1, limit + limit // 2, len(ids) - 1):  # the first, the last of a window, the last of all
            begin = (i - limit - 1) // (limit // 2 + 1) * (limit // 2 + 1) + limit // 2 + 1
            expected = direct(backend, ids[begin : i + 1])[-1]
            assert rolling.logprobs[i - 1] == pytest.approx(expected, abs=1e-5)
    assert rolling.total_logprob == pytest.approx(float(rolling.logprobs.astype(np.float64).sum()))


def test_a_completion_beyond_the_window_keeps_its_prompt_in_the_first() -> None:
    backend = backend_of("llama", "qv")
    with backend.as_base() as view:
        whole = view.logprob_of("the bell", LONG)
        pair = backend.codec.encode_pair("the bell", LONG)
        assert whole == pytest.approx(float(view._token_logprobs(pair.ids, start=pair.start).sum()), abs=1e-3)
    assert whole < 0


def test_prompts_that_do_not_fit_are_refused_instead_of_cut() -> None:
    backend = backend_of("llama", "qv")
    long = "x" * 200
    with backend.as_base() as view:
        for action in (
            lambda: view.logprob_of(long, "y"),
            lambda: view.next_token_dist(long),
            lambda: view.next_token_dist_batch(["a", long]),
            lambda: view.generate(long, max_new_tokens=1),
        ):
            with pytest.raises(
                BadInputError, match="prompt has 201 tokens and the model reads 128; shorten the prompt"
            ):
                action()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch_tokens", [1, 24, 2048])
def test_a_batch_comes_back_in_order_whatever_its_chunks(
    arch: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_BATCH_TOKENS", batch_tokens)
    with backend_of(arch, "qv").as_finetuned() as view:
        batch = view.next_token_dist_batch(PROMPTS, top_k=10**6)
        for prompt, dist in zip(PROMPTS, batch, strict=True):
            np.testing.assert_allclose(dense(dist), dense(view.next_token_dist(prompt, top_k=10**6)), atol=1e-4)
    np.testing.assert_array_equal(dense(batch[1]), dense(batch[4]))
    assert np.abs(dense(batch[0]) - dense(batch[1])).max() > 0.1


@pytest.mark.parametrize("kind", ["prompt", "prefix", "lm_head", "bias-all"])
def test_the_next_token_is_the_one_the_model_gives(kind: str) -> None:
    backend = backend_of("qwen2", kind)
    for opened in (backend.as_base, backend.as_finetuned):
        with opened() as view:
            batch = view.next_token_dist_batch(PROMPTS, top_k=10**6)
            for prompt, dist in zip(PROMPTS, batch, strict=True):
                ids = torch.from_numpy(backend.codec.encode_prompt(prompt))[None]
                with torch.inference_mode():
                    expected = backend.model(input_ids=ids).logits[0, -1].log_softmax(-1)
                np.testing.assert_allclose(dense(dist), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["qv", "prompt"])
def test_a_model_that_keeps_all_logits_is_read_at_the_same_places(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some take `logits_to_keep` among their other words, and pass it on to nobody."""
    with backend_of("llama", kind).as_finetuned() as view:
        expected = view.next_token_dist_batch(PROMPTS, top_k=10**6)
    backend = open_backend(base_of("llama"), adapter_of("llama", kind))
    core = backend.model.get_base_model()
    forward = core.forward

    def keeping_all(*args: Any, **words: Any) -> Any:
        return forward(*args, **{word: value for word, value in words.items() if word != "logits_to_keep"})

    monkeypatch.setattr(core, "forward", keeping_all)
    with backend.as_finetuned() as view:
        for dist, known in zip(view.next_token_dist_batch(PROMPTS, top_k=10**6), expected, strict=True):
            np.testing.assert_allclose(dense(dist), dense(known), atol=1e-5)


def test_an_empty_batch_is_empty() -> None:
    with backend_of("llama", "qv").as_base() as view:
        assert view.next_token_dist_batch([]) == []


def test_the_tail_is_what_the_top_leaves() -> None:
    with backend_of("llama", "qv").as_base() as view:
        whole, top = view.next_token_dist("a", top_k=10**6), view.next_token_dist("a", top_k=5)
    assert whole.tail_logprob is None
    assert top.tail_logprob == pytest.approx(
        float(np.log(np.exp(whole.logprobs[5:].astype(np.float64)).sum())), abs=1e-5
    )


def test_a_tail_below_fp32_is_there_but_not_measurable() -> None:
    logits = torch.full((50,), -500.0)
    logits[3] = 0.0
    assert hf_view._top(logits, 1).tail_logprob == 0.0


def test_a_text_of_no_or_one_token_has_nothing_to_score() -> None:
    with backend_of("llama", "qv").as_base() as view:
        rolling = view.rolling_logprob("")
    assert rolling.logprobs.shape == (0,)
    assert rolling.total_logprob == 0.0


@pytest.mark.parametrize("stops", [None, 1])
def test_what_the_model_would_rather_write_does_not_change_what_is_greedy(tmp_path: Path, stops: int | None) -> None:
    base = save_base(tmp_path / "base")
    own = {"do_sample": True, "repetition_penalty": 3.0, "temperature": 0.7, "top_k": 20, "suppress_tokens": [5]}
    (base / "generation_config.json").write_text(json.dumps(own | {"eos_token_id": stops}))
    backend = open_backend(base, adapter_of("llama", "qv"))
    with backend.as_finetuned() as view:
        before = backend.model.generation_config
        text = view.generate("the bell", max_new_tokens=25)
        assert backend.model.generation_config is before
        assert backend.model.get_base_model().generation_config.repetition_penalty == own["repetition_penalty"]
    engine = generate(Engine(backend), ["the bell"], views=[FINETUNED], max_new_tokens=25, format="raw")
    assert text == engine.texts[0][0]


@pytest.mark.parametrize(("arch", "kind"), [("gpt2", "qv"), ("gpt2", "prompt")])
def test_a_text_ends_where_the_window_does(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    prompt = "x" * 119  # and a bos, of 128
    written = generate(Engine(backend), [prompt], views=[BASE], max_new_tokens=50, format="raw").texts[0][0]
    with backend.as_base() as view:
        assert view.generate(prompt, max_new_tokens=50) == written
        assert view.generate(prompt, max_new_tokens=0) == ""
        assert view.generate("x" * 127, max_new_tokens=50)
    with backend.as_finetuned() as view:
        assert view.generate(prompt, max_new_tokens=50)


@pytest.mark.parametrize("kind", ["qv", "prompt"])
def test_generating_is_greedy_at_temperature_zero_and_leaves_the_random_state_alone(kind: str) -> None:
    backend = backend_of("llama", kind)
    with backend.as_finetuned() as view:
        state = torch.random.get_rng_state()
        greedy = [view.generate("the bell", max_new_tokens=5) for _ in range(2)]
        sampled = [view.generate("the bell", max_new_tokens=12, temperature=2.0, seed=s) for s in (1, 1, 2)]
        assert torch.equal(torch.random.get_rng_state(), state)
        best = int(view.next_token_dist("the bell", top_k=1).token_ids[0])
    assert greedy[0] == greedy[1]
    assert greedy[0].startswith(backend.codec.decode(np.array([best])))
    assert sampled[0] == sampled[1] != sampled[2]
