"""The engine on tiny models: the same numbers however the work is cut, and the model as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import backend_of, byte_tokenizer, lora, open_backend, save_adapter, save_base

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.errors import BadInputError, CannotRunError, ViewError
from dlm_sway.core.progress import Silent
from dlm_sway.core.views import FINETUNED, View, rotations, scaled
from dlm_sway.engine import sources
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.engine.factors import FactorStore
from dlm_sway.engine.run import Engine

VIEWS = (FINETUNED, scaled(0.4), *rotations(seed=1, n_draws=5), View("gaussian", seed=1, init_scale=0.1))
TEXTS = ["the bell is struck when the water falls below the line", "a", "the bell", "water falls", "the bell"]
ITEMS = tuple(TextItem("", text, str(i), f"text {i}") for i, text in enumerate(TEXTS))
ALL: frozenset[Reducer] = frozenset({"gain", "kl", "kl_rev", "js", "tv", "entropy", "rank", "top1"})


def ask(items: tuple[TextItem, ...] = ITEMS, views: tuple[View, ...] = VIEWS, **options: Any) -> Ask:
    return Ask(items, views, options.pop("reducers", ALL), format="raw", **options)


def score(backend: Any, *asks: Ask, **options: Any) -> list[Scores]:
    return Engine(backend, **options).answer(asks)


def same(a: Scores, b: Scores, *, atol: float = 1e-5) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_allclose(a.base_logprob, b.base_logprob, atol=atol)
    for name, values in a.values.items():
        np.testing.assert_allclose(values, b.values[name], atol=atol, rtol=1e-5, err_msg=name)


@contextmanager
def opened(tmp_path: Path, *, tokenizer: Any = None, **changes: Any) -> Iterator[HuggingFaceDifferentialBackend]:
    base = save_base(tmp_path / "base", tokenizer=tokenizer, **changes)
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora()))
    try:
        yield backend
    finally:
        backend.close()


@pytest.mark.parametrize("kind", ["all-linear", "saved-norm"])
@pytest.mark.parametrize("batch_tokens", [1, 20, 100, 317, 10**6])
def test_the_values_do_not_depend_on_the_token_budget(kind: str, batch_tokens: int) -> None:
    backend = backend_of("llama", kind)
    same(score(backend, ask(), batch_tokens=batch_tokens)[0], score(backend, ask())[0])


@pytest.mark.parametrize("kind", ["dora", "saved-head"])
def test_rows_of_different_lengths_together_equal_each_alone(kind: str) -> None:
    backend = backend_of("gemma3", kind)
    (together,) = score(backend, ask())
    for i, item in enumerate(ITEMS):
        (alone,) = score(backend, ask((item,)))
        part = slice(together.offsets[i], together.offsets[i + 1])
        for name, values in alone.values.items():
            np.testing.assert_allclose(together.values[name][:, part], values, atol=1e-5, rtol=1e-5, err_msg=name)


def test_a_view_alone_equals_the_view_among_others() -> None:
    backend = backend_of("qwen2", "lm_head")
    (together,) = score(backend, ask())
    for v, view in enumerate(VIEWS):
        (alone,) = score(backend, ask(views=(view,)))
        for name in ALL:
            np.testing.assert_allclose(together.values[name][v], alone.values[name][0], atol=1e-5, err_msg=name)


def test_views_split_over_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of("llama", "all-linear")
    (whole,) = score(backend, ask())
    for factor_bytes, per_pass in ((1, 1), (70_000, 3)):
        monkeypatch.setattr(sources, "FACTOR_BYTES", factor_bytes)
        monkeypatch.setattr(sources, "_SHARE", 10**12)
        engine = Engine(backend)
        (split,) = engine.answer([ask()])
        assert engine._source is not None
        assert engine._source.views_per_pass(VIEWS) == per_pass
        same(split, whole)


def test_a_small_budget_bounds_the_factors_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 70_000
    sizes: list[int] = []
    stack = FactorStore.stack

    def measured(self: FactorStore, sites: Any, views: Any) -> Any:
        made = stack(self, sites, views)
        sizes.append(sum(f.b_t.numel() * f.b_t.element_size() for f in made))
        sizes.append(sum(b.numel() * b.element_size() for _, b in self._kept.values()))
        return made

    monkeypatch.setattr(FactorStore, "stack", measured)
    monkeypatch.setattr(sources, "FACTOR_BYTES", budget)
    monkeypatch.setattr(sources, "_SHARE", 10**12)
    score(backend_of("llama", "all-linear"), ask(views=(FINETUNED, *rotations(seed=0, n_draws=39)), reducers={"kl"}))
    assert 0.5 * budget < max(sizes) <= budget


def test_two_asks_are_answered_each_in_its_own_order() -> None:
    backend = backend_of("llama", "qv")
    turned = ask(ITEMS[::-1], VIEWS[::-1])
    one, two = score(backend, ask(), turned)
    same(one, score(backend, ask())[0])
    same(two, score(backend, turned)[0])
    assert two.views == VIEWS[::-1]


def test_what_was_scored_is_not_scored_again() -> None:
    engine = Engine(backend_of("llama", "qv"))
    engine.answer([ask(), ask()])
    once = engine.view_tokens_done
    engine.answer([ask(ITEMS[2:], VIEWS[::2], reducers=frozenset({"kl"}))])
    assert engine.view_tokens_done == once


def test_an_ask_without_views_gives_the_base() -> None:
    backend = backend_of("llama", "qv")
    (alone,) = score(backend, ask(views=()))
    np.testing.assert_allclose(alone.base_logprob, score(backend, ask())[0].base_logprob, atol=1e-5)
    assert alone.values["kl"].shape == (0, alone.offsets[-1])


def test_the_next_token_after_a_text_has_every_divergence_but_no_target() -> None:
    backend = backend_of("llama", "qv")
    (scores,) = score(backend, ask(ITEMS[:3], position="last"))
    assert scores.tokens.tolist() == [1, 1, 1]
    assert np.isnan(scores.values["gain"]).all()
    assert np.isnan(scores.base_logprob).all()
    for i, text in enumerate(TEXTS[:3]):
        dense = []
        for view in (View(lam=0.0), *VIEWS):
            with backend.view(view) as v:
                dist = v.next_token_dist(text, top_k=10**6)
            order = np.argsort(dist.token_ids)
            dense.append(dist.logprobs[order].astype(np.float64))
        base, views = dense[0], np.stack(dense[1:])
        expected = (np.exp(base) * (base - views)).sum(-1)
        np.testing.assert_allclose(scores.values["kl"][:, i], expected, atol=1e-4)


def test_an_empty_prompt_is_scored_from_the_prefix_token() -> None:
    backend = backend_of("llama", "qv")
    (scores,) = score(backend, ask((TextItem("", "xy", "0", "0"),)))
    with backend.as_base() as view:
        assert scores.base_logprob.sum() == pytest.approx(view.logprob_of("", "xy"), abs=1e-4)
    assert scores.tokens.tolist() == [2]


def test_a_prompt_is_read_but_not_scored() -> None:
    backend = backend_of("qwen2", "dora")
    items = (TextItem("the bell", " rings", "0", "0"), TextItem("the bell ", "rings", "1", "1"))
    (scores,) = score(backend, ask(items))
    with backend.as_finetuned() as view:
        expected = [view.logprob_of(i.prompt, i.completion) for i in items]
    got = np.add.reduceat(scores.base_logprob + scores.values["gain"][0], scores.offsets[:-1])
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_tokenizer_without_pad_and_bos_will_do(tmp_path: Path) -> None:
    with opened(tmp_path, tokenizer=byte_tokenizer(bos=False, pad=False)) as backend:
        (scores,) = score(backend, ask())
        for i, view in enumerate(VIEWS):
            with backend.view(view) as v:
                expected = [v.logprob_of("", text) for text in TEXTS]
                dists = v.next_token_dist_batch(["", "the bell", "a"], top_k=3)
            got = np.add.reduceat(scores.base_logprob + scores.values["gain"][i], scores.offsets[:-1])
            np.testing.assert_allclose(got, expected, atol=1e-4)
            assert len(dists) == 3


def test_a_vocabulary_padded_beyond_the_tokenizer_counts_whole(tmp_path: Path) -> None:
    with opened(tmp_path, vocab_size=512) as backend:
        assert backend.model.config.vocab_size > len(backend.codec.tokenizer)
        (scores,) = score(backend, ask())
        with backend.view(VIEWS[2]) as v:
            expected = np.concatenate([v.rolling_logprob(text).logprobs for text in TEXTS])
        np.testing.assert_allclose(scores.base_logprob + scores.values["gain"][2], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["qv", "saved-norm"])
def test_a_text_beyond_the_window_is_scored_as_a_view_scores_it(kind: str) -> None:
    backend = backend_of("llama", kind)
    text = "the water falls " * 20
    assert len(backend.codec.encode(text)) > 2 * backend.codec.max_length
    (scores,) = score(backend, ask((TextItem("", text, "0", "0"),)))
    for i, view in enumerate(VIEWS):
        with backend.view(view) as v:
            expected = v.rolling_logprob(text).logprobs
        np.testing.assert_allclose(scores.base_logprob + scores.values["gain"][i], expected, atol=1e-4)


def test_a_prompt_that_fills_the_window_is_an_error_that_names_the_item() -> None:
    item = TextItem("p" * 200, "c", "0", "the long one")
    with pytest.raises(BadInputError, match=r"the long one: the prompt has \d+ tokens and the model reads 128"):
        score(backend_of("llama", "qv"), ask((item,)))


def test_an_item_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(BadInputError, match="text 1: the completion is empty"):
        score(backend_of("llama", "qv"), ask((ITEMS[0], TextItem("a", "", "1", "text 1"))))


class _Meddler(Silent):
    """Opens a view while the engine runs."""

    def __init__(self, backend: HuggingFaceDifferentialBackend) -> None:
        self.backend = backend
        self.refused = 0

    def work(self, done: int, total: int) -> None:
        del done, total
        with pytest.raises(ViewError, match="another view is open"), self.backend.as_base():
            pass
        self.refused += 1


def test_no_view_opens_while_the_engine_runs() -> None:
    backend = backend_of("llama", "qv")
    meddler = _Meddler(backend)
    score(backend, ask(), progress=meddler)
    assert meddler.refused


def test_the_engine_does_not_start_while_a_view_is_open() -> None:
    backend = backend_of("llama", "qv")
    with backend.as_finetuned() as view:
        with pytest.raises(ViewError, match="another view is open"):
            score(backend, ask())
        assert view.next_token_dist("a", top_k=1)


@pytest.mark.parametrize("kind", ["all-linear", "embedding", "saved-head", "bias-all"])
@pytest.mark.parametrize("n_calls", [0, 1])
def test_an_error_in_the_middle_leaves_the_adapter_bit_for_bit(
    kind: str, n_calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback is alive while the model is looked at: nothing may hang on it."""
    backend = backend_of("qwen2", kind)
    before = {n: p.detach().clone() for n, p in backend.model.named_parameters()}
    calls = []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > n_calls:
            raise KeyError("stop")
        return reduce_block(*args, **kwargs)

    from dlm_sway.engine import run

    reduce_block = run.reduce_block
    monkeypatch.setattr(run, "reduce_block", broken)
    with backend.as_finetuned() as view:
        expected = view.rolling_logprob(TEXTS[0]).logprobs
    try:
        score(backend, ask(), batch_tokens=64)
    except KeyError:
        assert all(torch.equal(p, before[n]) for n, p in backend.model.named_parameters())
        assert not any("forward" in vars(m) for m in backend.model.modules())
        with backend.as_finetuned() as view:
            np.testing.assert_array_equal(view.rolling_logprob(TEXTS[0]).logprobs, expected)
    else:
        pytest.fail("the error was swallowed")


def test_a_number_that_is_not_finite_is_an_error_that_names_the_view(tmp_path: Path) -> None:
    def break_one(model: Any) -> None:
        weights = model.base_model.model.model.layers[1].self_attn.q_proj.lora_B["default"].weight
        with torch.no_grad():
            weights[0, 0] = float("nan")

    base = save_base(tmp_path / "base")
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora(), change=break_one))
    with pytest.raises(CannotRunError, match=r"not finite in \d+ places, first under View\(kind='adapter', lam=1.0"):
        score(backend, ask(views=(FINETUNED,)))
    assert np.isfinite(score(backend, ask(views=()))[0].base_logprob).all()
