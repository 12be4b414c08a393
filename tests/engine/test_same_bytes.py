"""A result is the same bit for bit whatever the token budget is, and whatever else is scored beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import backend_of, byte_tokenizer, lora, open_backend, save_adapter, save_base

from dlm_sway.core.store import MemoryStore
from dlm_sway.core.views import FINETUNED, View, rotations, scaled
from dlm_sway.engine import sources
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.engine.run import Engine

ALL: frozenset[Reducer] = frozenset({"gain", "kl", "kl_rev", "js", "tv", "entropy", "rank", "top1"})
BUDGETS = (64, 256, 2048, 8192)
CONTEXT = "The bell is struck when the water falls below the line. "
WORDS = ["the", "bell", "is", "struck", "when", "water", "falls", "below", "a", "line", "and", "never", "before"]


def _text(n: int, start: int) -> str:
    return " ".join(WORDS[(start + i * i) % len(WORDS)] for i in range(n))


LONE = tuple(TextItem("", _text(1 + i % 9, i), str(i), f"text {i}") for i in range(12))
LONG = (TextItem("", _text(60, 3), "long", "beyond the window"), TextItem("", "a", "a", "a"))
SHARED = tuple(
    TextItem(prompt, completion, "0", f"{prompt} {completion}")
    for prompt in (CONTEXT + "Who strikes it?", CONTEXT + "When is it struck?", "Who?", "What is a bell, and a tide?")
    for completion in (" The warden.", " At low water, and never before", " No", " y")
)
NULLS = rotations(seed=1, n_draws=7)


def asks() -> list[Ask]:
    """Return short and long texts, shared prompts, several sets of views, and every reducer."""
    gaussian = View("gaussian", seed=1, init_scale=0.1)
    return [
        Ask(LONE, (FINETUNED, *NULLS), frozenset({"gain", "kl"}), format="raw"),
        Ask(LONE[:5], (FINETUNED, scaled(0.4), *NULLS[:2], gaussian), ALL, format="raw"),
        Ask(LONG, (FINETUNED, *NULLS[:3]), frozenset({"gain", "js"}), format="raw"),
        Ask(SHARED, (FINETUNED, *NULLS), frozenset({"gain"}), format="raw"),
        Ask(SHARED[:3], (FINETUNED,), ALL, position="last", format="raw"),
        Ask(LONE[9:11], (), frozenset(), format="raw"),
    ]


def answered(backend: Any, some: list[Ask], **options: Any) -> list[Scores]:
    engine = Engine(backend, **options)
    engine.batch_tokens = options.get("batch_tokens", engine.batch_tokens)  # also budgets that a CPU would not take
    return engine.answer(some)


def assert_equal(some: list[Scores], others: list[Scores]) -> None:
    for k, (one, other) in enumerate(zip(some, others, strict=True)):
        np.testing.assert_array_equal(one.base_logprob, other.base_logprob, err_msg=f"ask {k}: base")
        for name, values in one.values.items():
            np.testing.assert_array_equal(values, other.values[name], err_msg=f"ask {k}: {name}")


STACKED = [("llama", "all-linear"), ("gpt2", "qv"), ("gemma3", "dora"), ("qwen2", "lm_head"), ("llama", "embedding")]
VIEW_BY_VIEW = [("llama", "saved-head"), ("gpt2", "bias-all")]


@pytest.mark.parametrize(("arch", "kind"), STACKED + VIEW_BY_VIEW)
def test_every_number_is_the_same_under_any_budget(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    first = answered(backend, asks(), batch_tokens=BUDGETS[0])
    for batch_tokens in BUDGETS[1:]:
        assert_equal(answered(backend, asks(), batch_tokens=batch_tokens), first)


@pytest.mark.parametrize(("arch", "kind"), [("llama", "ia3"), ("gpt2", "prompt")])
def test_adapters_without_nulls_give_the_same_under_any_budget(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    plain = [replace(ask, views=ask.views[:1]) for ask in asks() if ask.items is not LONG]
    first = answered(backend, plain, batch_tokens=BUDGETS[0])
    for batch_tokens in BUDGETS[1:]:
        assert_equal(answered(backend, plain, batch_tokens=batch_tokens), first)


def test_views_split_over_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of("llama", "all-linear")
    whole = answered(backend, asks())
    monkeypatch.setattr(sources, "_SHARE", 10**12)
    for factor_bytes in (1, 70_000):
        monkeypatch.setattr(sources, "FACTOR_BYTES", factor_bytes)
        assert_equal(answered(backend, asks()), whole)


def test_an_item_alone_gives_what_it_gives_among_others() -> None:
    backend = backend_of("llama", "qv")
    (together,) = answered(backend, [asks()[0]])
    for i, item in enumerate(LONE):
        (alone,) = answered(backend, [replace(asks()[0], items=(item,))])
        part = slice(together.offsets[i], together.offsets[i + 1])
        for name, values in alone.values.items():
            np.testing.assert_array_equal(together.values[name][:, part], values, err_msg=item.label)


class _Lossy(MemoryStore):
    """Has lost a third of what it was given, as a run leaves it that was stopped."""

    def get_many(self, keys: Any) -> dict[bytes, bytes]:
        return {k: v for k, v in super().get_many(keys).items() if k[0] % 3}


@pytest.mark.parametrize(("arch", "kind"), [("llama", "all-linear"), ("gpt2", "bias-all")])
def test_what_a_stopped_run_left_is_completed_to_the_same(
    arch: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(arch, kind)
    monkeypatch.setattr(backend, "fingerprint", lambda _: "known")
    store = _Lossy(max_bytes=2**24)
    whole = answered(backend, asks(), store=store)
    again = Engine(backend, store=store, batch_tokens=300)
    assert_equal(again.answer(asks()), whole)
    assert again.cached_positions > 0
    assert again.view_tokens_done > 0


def test_another_round_does_not_change_how_a_row_is_read() -> None:
    backend = backend_of("llama", "qv")
    engine = Engine(backend)
    (first,) = engine.answer([Ask(SHARED[:1], (FINETUNED,), ALL, format="raw")])
    engine.answer([Ask(SHARED, (FINETUNED, *NULLS), ALL, format="raw")])
    (again,) = engine.answer([Ask(SHARED[:1], (FINETUNED,), ALL, format="raw")])
    assert_equal([again], [first])


def test_out_of_memory_changes_no_number() -> None:
    backend = backend_of("llama", "qv")
    whole = answered(backend, asks())
    failed = []

    def fail(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].numel() > 300:
            failed.append(1)
            raise MemoryError

    handle = backend.model.get_base_model().register_forward_pre_hook(fail, with_kwargs=True)
    try:
        again = answered(backend, asks())
    finally:
        handle.remove()
    assert failed
    assert_equal(again, whole)


def test_a_large_vocabulary_and_odd_sizes_give_the_same(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer(bos=False), vocab_size=5003, intermediate_size=80)
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora(target_modules="all-linear")))
    first = answered(backend, asks(), batch_tokens=100)
    assert_equal(answered(backend, asks(), batch_tokens=5000), first)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = answered(backend, asks(), batch_tokens=100)
        assert_equal(answered(backend, asks(), batch_tokens=5000), first)
    finally:
        torch.set_num_threads(threads)
