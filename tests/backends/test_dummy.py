from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.backends.base import BulkBackend, LogitBackend, TextCodec
from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_lm import log_softmax
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.backends.dummy_text import DummyCodec
from dlm_sway.core import scoring
from dlm_sway.core.errors import BadInputError, CannotRunError, NullRuleError, ViewError
from dlm_sway.core.model import Model
from dlm_sway.core.views import BASE, FINETUNED, View, scaled

TEXT = "the bell is struck when the water falls below the line"
PROMPTS = ["the bell", "a", "", "below the line of the bell is the water"]
OPENERS: dict[str, Callable[[DummyBackend], Any]] = {
    "base": lambda b: b.as_base(),
    "finetuned": lambda b: b.as_finetuned(),
    "scaled": lambda b: b.as_scaled_adapter(0.5),
    "null": lambda b: b.as_null_adapter(3),
    "bulk": lambda b: b.exclusive(),
}


def _dense(view: scoring.ScoringBackend, prompt: str = "the bell") -> np.ndarray:
    dist = view.next_token_dist(prompt, top_k=10**6)
    out = np.empty(dist.vocab_size)
    out[dist.token_ids] = dist.logprobs
    return out


def _seen(opened: Any, prompt: str = "the bell") -> np.ndarray:
    with opened as view:
        return _dense(view, prompt)


@pytest.fixture(scope="module")
def backend() -> DummyBackend:
    return DummyBackend(DummyOptions(strength=1.0))


def test_it_has_every_capability(backend: DummyBackend) -> None:
    for protocol in (
        scoring.DifferentialBackend,
        scoring.ScalableDifferentialBackend,
        scoring.NullCalibratedBackend,
        scoring.PreflightCheckable,
        BulkBackend,
        LogitBackend,
    ):
        assert isinstance(backend, protocol), protocol
    assert isinstance(backend.codec, TextCodec)
    with backend.as_base() as view:
        for protocol in (scoring.ScoringBackend, Model, scoring.ScoringModel):
            assert isinstance(view, protocol), protocol
        assert view.id == "dummy [base]"
        view.close()


def test_rolling_logprob_scores_every_token_but_the_first(backend: DummyBackend) -> None:
    with backend.as_finetuned() as view:
        found, one, none = view.rolling_logprob(TEXT), view.rolling_logprob("a"), view.rolling_logprob(" ")
    assert found.num_tokens == found.token_ids.size == len(TEXT.split())
    assert found.logprobs.shape == (found.num_tokens - 1,)
    assert (found.token_ids.dtype, found.logprobs.dtype) == (np.int64, np.float32)
    assert found.total_logprob == pytest.approx(float(found.logprobs.sum()), abs=1e-4)
    assert (one.logprobs.size, one.total_logprob, one.perplexity) == (0, 0.0, 1.0)
    assert (none.num_tokens, none.mean_logprob) == (0, 0.0)


def test_logprob_of_scores_the_completion_alone(backend: DummyBackend) -> None:
    prompt, completion = "the bell is struck when", " the water falls"
    with backend.as_finetuned() as view:
        whole, part = view.rolling_logprob(prompt + completion), view.rolling_logprob(prompt)
        assert view.logprob_of(prompt, completion) == pytest.approx(whole.total_logprob - part.total_logprob, abs=1e-4)
        by_hand = _dense(view, "")[backend.codec.encode("bell")[0]]
        assert view.logprob_of("", "bell") == pytest.approx(by_hand, abs=1e-5)


def test_a_word_over_the_boundary_belongs_to_the_completion(backend: DummyBackend) -> None:
    pair = backend.codec.encode_pair("the be", "ll rings")
    assert pair.ids.tolist() == backend.codec.encode("the bell rings").tolist()
    assert (pair.start, pair.n_scored) == (1, 2)


@pytest.mark.parametrize(("completion", "message"), [("", "the completion is empty"), (" \n", "holds no token")])
def test_a_completion_with_nothing_to_score_is_refused(backend: DummyBackend, completion: str, message: str) -> None:
    with backend.as_base() as view, pytest.raises(BadInputError, match=message):
        view.logprob_of("the bell", completion)


def test_a_distribution_is_sorted_and_its_tail_is_what_is_left(backend: DummyBackend) -> None:
    with backend.as_base() as view:
        top, whole = view.next_token_dist("the bell", top_k=16), view.next_token_dist("the bell", top_k=10**6)
    assert top.token_ids.shape == top.logprobs.shape == (16,)
    assert (np.diff(top.logprobs) <= 0).all()
    assert (whole.tail_logprob, whole.logprobs.size) == (None, whole.vocab_size)
    assert top.tail_logprob is not None
    assert np.exp(top.logprobs).sum() + math.exp(top.tail_logprob) == pytest.approx(1.0, abs=1e-5)


def test_a_tail_too_small_for_fp32_says_that_it_is_there() -> None:
    backend = DummyBackend(DummyOptions(adapter="trained", towards=("w50 w51",), strength=1000.0))
    with backend.as_finetuned() as view:
        assert view.next_token_dist("w50", top_k=1).tail_logprob == 0.0


def test_a_batch_equals_its_prompts_one_by_one(backend: DummyBackend) -> None:
    with backend.as_finetuned() as view:
        batch = view.next_token_dist_batch(PROMPTS, top_k=10**6)
        for prompt, found in zip(PROMPTS, batch, strict=True):
            alone = view.next_token_dist(prompt, top_k=10**6)
            assert np.array_equal(found.token_ids, alone.token_ids)
            assert np.array_equal(found.logprobs, alone.logprobs)
        assert view.next_token_dist_batch([]) == []


@pytest.mark.parametrize(("first", "second"), list(itertools.product(OPENERS, OPENERS)))
def test_no_two_views_are_open_together(first: str, second: str) -> None:
    backend = DummyBackend()
    with OPENERS[first](backend), pytest.raises(ViewError, match="another view is open"), OPENERS[second](backend):
        pass
    with OPENERS[second](backend):
        pass


@pytest.mark.parametrize("name", ["base", "finetuned", "scaled", "null"])
def test_a_view_does_not_answer_after_its_block(name: str) -> None:
    backend = DummyBackend()
    with OPENERS[name](backend) as stale:
        pass
    with OPENERS[name](backend):
        for ask in (
            lambda: stale.rolling_logprob(TEXT),
            lambda: stale.next_token_dist("a"),
            lambda: stale.logprob_of("a", "b"),
            lambda: stale.generate("a", max_new_tokens=1),
        ):
            with pytest.raises(ViewError, match="this view is closed"):
                ask()


def test_an_exception_inside_a_view_leaves_the_backend_usable(backend: DummyBackend) -> None:
    before = _seen(backend.as_finetuned())
    with pytest.raises(KeyError), backend.as_null_adapter(1):
        raise KeyError("x")
    with pytest.raises(KeyError), backend.exclusive():
        raise KeyError("x")
    assert np.array_equal(_seen(backend.as_finetuned()), before)
    with pytest.raises(ViewError, match="not held for bulk work"):
        backend.logits(np.zeros((1, 1), np.int64), np.zeros((1, 2), np.int64), BASE)


def test_scale_zero_is_the_base_and_one_the_fine_tune(backend: DummyBackend) -> None:
    base, tuned = _seen(backend.as_base()), _seen(backend.as_finetuned())
    assert np.array_equal(_seen(backend.as_scaled_adapter(0.0)), base)
    assert np.array_equal(_seen(backend.as_scaled_adapter(1.0)), tuned)
    near, nearer = _seen(backend.as_scaled_adapter(1.25)), _seen(backend.as_scaled_adapter(1.2501))
    assert not np.array_equal(near, nearer)
    assert not np.array_equal(base, tuned)


@pytest.mark.parametrize("lam", [math.nan, math.inf])
def test_a_scale_that_is_not_finite_is_refused(backend: DummyBackend, lam: float) -> None:
    with pytest.raises(ValueError, match="lam must be finite"):
        backend.as_scaled_adapter(lam)


def test_null_adapters_repeat_by_seed_and_differ_by_every_option(backend: DummyBackend) -> None:
    asked: list[dict[str, Any]] = [
        {"seed": 3, "init_scale": 0.5},
        {"seed": 4, "init_scale": 0.5},
        {"seed": 3, "init_scale": 0.51},
        {"seed": 3, "init_scale": 0.5, "rank_scale": 2.0},
    ]
    found = [_seen(backend.as_null_adapter(**options)) for options in asked]
    assert np.array_equal(found[0], _seen(DummyBackend(backend.options).as_null_adapter(**asked[0])))
    for one, other in itertools.combinations(found, 2):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("rank_scale", [0.0, -1.0, math.nan, math.inf])
def test_a_rank_scale_that_is_not_positive_and_finite_is_refused(backend: DummyBackend, rank_scale: float) -> None:
    with pytest.raises(ValueError, match="rank_scale must be positive and finite"):
        backend.as_null_adapter(0, rank_scale=rank_scale)


@pytest.mark.parametrize("init_scale", [-0.1, math.nan])
def test_an_init_scale_that_is_no_size_is_refused(backend: DummyBackend, init_scale: float) -> None:
    with pytest.raises(ValueError, match="init_scale must be finite and not negative"):
        backend.as_null_adapter(0, init_scale=init_scale)


def test_rotations_keep_the_size_of_the_change_after_every_token(backend: DummyBackend) -> None:
    real = np.linalg.norm(backend._change(FINETUNED), axis=1)
    for draw in range(3):
        turned = backend._change(View("rotation", draw=draw))
        assert np.allclose(np.linalg.norm(turned, axis=1), real, rtol=1e-5)
        assert np.abs(turned - backend._change(FINETUNED)).max() > 0.1


def test_a_null_of_another_rank_changes_the_energy_in_proportion(backend: DummyBackend) -> None:
    real = (backend._change(FINETUNED) ** 2).sum()
    for multiplier in (0.5, 2.0):
        draws = [(backend._change(View("rotation", draw=d, rank_scale=multiplier)) ** 2).sum() for d in range(60)]
        assert np.mean(draws) / real == pytest.approx(multiplier, rel=0.1)


@pytest.mark.parametrize("view", [BASE, FINETUNED, scaled(0.5), View("rotation", draw=2), View("sign_flip", draw=2)])
def test_bulk_logits_are_those_of_the_view_whatever_else_is_in_the_batch(backend: DummyBackend, view: View) -> None:
    long, short = backend.codec.encode(TEXT), backend.codec.encode("a bell")
    ids = np.zeros((2, long.size), dtype=np.int64)
    ids[0, : short.size], ids[1] = short, long
    with backend.exclusive():
        alone = backend.logits(short[None], np.array([[0, 1]]), view)
        together = backend.logits(ids, np.array([[1, 3], [0, 1]]), view)
    assert (together.dtype, together.shape) == (np.float32, (2, backend.options.vocab_size))
    assert np.array_equal(alone[0], together[1])
    with backend.view(view) as opened:
        assert np.allclose(_dense(opened, "a bell"), log_softmax(alone)[0], atol=1e-6)


def test_training_moves_texts_towards_and_away(language: Callable[..., tuple[str, ...]]) -> None:
    good, bad = language(8), language(8, first=70)
    backend = DummyBackend(DummyOptions(adapter="trained", towards=good, away=bad))
    gains = []
    for texts in (good, language(4, seed=1), bad, (TEXT,)):
        with backend.as_base() as view:
            before = sum(view.rolling_logprob(t).mean_logprob for t in texts)
        with backend.as_finetuned() as view:
            gains.append((sum(view.rolling_logprob(t).mean_logprob for t in texts) - before) / len(texts))
    assert gains[0] > 0.5
    assert gains[1] > 0.5
    assert gains[2] < -0.5
    assert abs(gains[3]) < 0.1


def test_an_adapter_of_zeros_changes_nothing() -> None:
    backend = DummyBackend(DummyOptions(adapter="none"))
    for opened in (backend.as_finetuned(), backend.view(View("rotation"))):
        assert np.array_equal(_seen(opened), _seen(DummyBackend().as_base()))


def test_the_same_options_are_the_same_model_and_another_seed_is_not() -> None:
    one, again = DummyBackend(DummyOptions(adapter_seed=5)), DummyBackend(DummyOptions(adapter_seed=5))
    assert np.array_equal(_seen(one.as_finetuned()), _seen(again.as_finetuned()))
    assert np.array_equal(_seen(one.as_base()), _seen(DummyBackend(DummyOptions(adapter_seed=6)).as_base()))
    assert not np.array_equal(
        _seen(one.as_finetuned()), _seen(DummyBackend(DummyOptions(adapter_seed=6)).as_finetuned())
    )
    assert not np.array_equal(_seen(one.as_base()), _seen(DummyBackend(DummyOptions(seed=1)).as_base()))


def test_nan_comes_from_the_views_that_were_told_to_give_it() -> None:
    backend = DummyBackend(DummyOptions(nan_in={"rotation"}))
    assert np.isfinite(_seen(backend.as_base())).all()
    assert np.isfinite(_seen(backend.as_finetuned())).all()
    assert np.isnan(_seen(backend.view(View("rotation")))).all()
    assert np.isfinite(_seen(backend.view(View("rotation", lam=0.0)))).all()


@pytest.mark.parametrize(("where", "name"), [("base", "base"), ("adapter", "fine-tuned")])
def test_preflight_says_which_model_is_not_finite(where: str, name: str) -> None:
    ok, reason = DummyBackend(DummyOptions(nan_in={where})).preflight_finite_check()
    assert not ok
    assert reason == f"the {name} model gives 8 non-finite log-probs on a fixed prompt of 8"
    assert DummyBackend().preflight_finite_check() == (True, "")


def test_the_machine_gives_up_when_told_to() -> None:
    backend = DummyBackend(DummyOptions(forwards=2))
    with backend.as_base() as view:
        view.next_token_dist_batch(["a", "b"])
        with pytest.raises(CannotRunError, match="the machine gave up after 2 forward passes"):
            view.next_token_dist("c")


def test_refused_nulls_leave_the_other_views() -> None:
    backend = DummyBackend(DummyOptions(refusal="tensor head.bias has no rule"))
    assert backend.null_refusal() == "tensor head.bias has no rule"
    with pytest.raises(NullRuleError, match=r"head\.bias has no rule"), backend.as_null_adapter(0):
        pass
    with backend.exclusive(), pytest.raises(NullRuleError):
        backend.logits(np.zeros((1, 1), np.int64), np.zeros((1, 2), np.int64), View("rotation"))
    assert _seen(backend.as_scaled_adapter(0.5)).size == backend.options.vocab_size
    assert DummyBackend().null_refusal() is None


def test_a_chat_template_is_used_where_there_is_one() -> None:
    plain, chat = DummyBackend().codec, DummyBackend(DummyOptions(chat_template=True)).codec
    assert (plain.has_chat_template, chat.has_chat_template) == (False, True)
    rendered = chat.encode_pair("the bell", "rings", format="auto")
    assert rendered.ids.tolist() == chat.encode("<user> the bell <assistant> rings").tolist()
    assert rendered.n_scored == 1
    assert chat.encode_pair("", "the bell").ids.size == 3
    assert chat.encode_pair("the bell ", "rings", format="raw").ids.size == 3
    assert plain.encode_pair("the bell ", "rings", format="auto").ids.size == 3
    assert chat.encode_prompt("the bell", format="auto").tolist() == chat.encode("<user> the bell <assistant>").tolist()
    assert chat.encode_prompt("the bell").size == 2
    with pytest.raises(BadInputError, match="no chat template; use format: raw"):
        plain.encode_pair("the bell", "rings", format="chat")


def test_a_short_window_scores_every_token_once() -> None:
    text = " ".join(f"w{i}" for i in range(2, 40))
    whole, short = DummyBackend(), DummyBackend(DummyOptions(max_length=8))
    with whole.as_base() as view:
        expected = view.rolling_logprob(text)
    with short.as_base() as view:
        found = view.rolling_logprob(text)
    # Two tokens of context are all that this model reads, and windows overlap by more.
    assert np.array_equal(found.logprobs, expected.logprobs)
    assert short.codec.max_length == 8


def test_a_prompt_that_does_not_fit_the_window_is_refused() -> None:
    with DummyBackend(DummyOptions(max_length=8)).as_base() as view:
        assert view.next_token_dist("a b c d e f g h").vocab_size == 96
        with pytest.raises(BadInputError, match="a prompt has 9 tokens and the model reads 8; shorten"):
            view.next_token_dist("a b c d e f g h i")
        with pytest.raises(BadInputError, match="the prompt has 8 tokens and the model reads 8; shorten"):
            view.logprob_of("a b c d e f g h ", "i")


def test_generation_is_greedy_or_reproducible_by_seed(backend: DummyBackend) -> None:
    with backend.as_finetuned() as view:
        greedy = view.generate("the bell", max_new_tokens=6)
        assert greedy == view.generate("the bell", max_new_tokens=6, seed=9)
        assert greedy == view.generate("the bell", max_new_tokens=6, temperature=1.0, top_p=1e-9)
        sampled = [view.generate("the bell", max_new_tokens=12, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
        assert view.generate("the bell", max_new_tokens=0) == ""
        first = int(np.argmax(_dense(view)))
    assert greedy.split()[0] == f"w{first}"
    assert sampled[0] == sampled[1] != sampled[2]


def test_generation_ends_at_the_end_token() -> None:
    backend = DummyBackend(DummyOptions(adapter="trained", towards=("w50 w51 w1",), strength=50.0))
    with backend.as_finetuned() as view:
        assert view.generate("w50", max_new_tokens=9) == " w51"


def test_a_closed_backend_does_not_open() -> None:
    backend = DummyBackend()
    with backend.as_base() as view:
        backend.close()
        backend.close()
        with pytest.raises(ViewError, match="this view is closed"):
            view.next_token_dist("a")
    with pytest.raises(ViewError, match="the backend is closed"), backend.as_base():
        pass


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 95), max_size=12))
def test_named_words_are_the_tokens_that_they_name(ids: list[int]) -> None:
    codec = DummyCodec(vocab_size=96, max_length=64, chat_template=False)
    assert codec.encode(codec.decode(np.array(ids, dtype=np.int64))).tolist() == ids


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_other_words_stay_in_the_first_half_of_the_vocabulary(text: str) -> None:
    codec = DummyCodec(vocab_size=96, max_length=64, chat_template=False)
    ids = codec.encode(text.replace("w", "v"))
    assert ((ids >= 2) & (ids < 48)).all()
    assert codec.encode_prompt(text).size >= 1


def test_a_word_that_names_no_token_is_a_word_like_any_other() -> None:
    codec = DummyCodec(vocab_size=96, max_length=64, chat_template=False)
    assert codec.encode("w95").tolist() == [95]
    assert codec.encode("w96")[0] < 48
    assert codec.encode("bell bell")[0] == codec.encode(" bell")[0]
