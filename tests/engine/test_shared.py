"""Rows that begin alike: what they share is read once a view, and every number stays what it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import ARCHITECTURES, backend_of, lora, open_backend, save_adapter, save_base

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.core.views import FINETUNED, rotations, scaled
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.engine.widths import padded

VIEWS = (FINETUNED, scaled(0.4), *rotations(seed=2, n_draws=2))
REDUCERS: frozenset[Reducer] = frozenset({"gain", "kl", "js", "entropy"})
CONTEXT = "The bell is struck when the water falls below the line. "
ITEMS = tuple(
    TextItem(prompt, completion, "0", f"{prompt} {completion}")
    for prompt in (CONTEXT + "Who strikes it?", CONTEXT + "When is it struck?", "Who?", "What is a bell, and a tide?")
    for completion in (" The warden.", " At low water, and never before", " No", " y")
)


@contextmanager
def counted(backend: Any) -> Iterator[list[int]]:
    """Counts the tokens that each pass reads."""
    tokens: list[int] = []

    def note(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        tokens.append(kwargs["input_ids"].numel())

    handle = backend.model.get_base_model().register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield tokens
    finally:
        handle.remove()


def scored(backend: Any, items: tuple[TextItem, ...], *, shares: bool, **options: Any) -> tuple[Scores, int]:
    """Scores, and the tokens read for them."""
    position = options.pop("position", "completion")
    views = options.pop("views", VIEWS)
    reducers = options.pop("reducers", REDUCERS)
    engine = Engine(backend, **options)
    with engine.opened() as source:
        if shares:
            assert source.continues
            getattr(source, "_inner", None)  # its check reads a few tokens of its own
        else:
            vars(source)["continues"] = False  # where the property keeps what it found
    with counted(backend) as tokens:
        (scores,) = engine.answer([Ask(items, views, reducers, position=position, format="raw")])
    return scores, sum(tokens)


def assert_same(one: Scores, other: Scores) -> None:
    assert np.allclose(one.base_logprob, other.base_logprob, rtol=0, atol=1e-4, equal_nan=True)
    for name, values in one.values.items():
        assert np.allclose(values, other.values[name], rtol=0, atol=1e-4, equal_nan=True), name


@pytest.mark.parametrize("kind", ["qv", "dora", "embedding", "ia3", "saved-head"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sharing_changes_no_number(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    views = VIEWS if kind != "ia3" else (FINETUNED,)
    shared, n_shared = scored(backend, ITEMS, shares=True, views=views)
    whole, n_whole = scored(backend, ITEMS, shares=False, views=views)
    assert_same(shared, whole)
    # A view by itself needs more rows a pass to be rounded alike, and these texts are short.
    assert n_shared < (0.55 if kind not in ("ia3", "saved-head") else 0.85) * n_whole


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_sharing_changes_no_number_at_any_budget(arch: str, batch_tokens: int) -> None:
    backend = backend_of(arch, "qv")
    shared, _ = scored(backend, ITEMS, shares=True, batch_tokens=batch_tokens)
    assert_same(shared, scored(backend, ITEMS, shares=False)[0])


def test_windows_shorter_than_the_prefix_beside_full_attention_change_no_number(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gemma3", layer_types=["sliding_attention", "full_attention"])
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora("gemma3")))
    shared, _ = scored(backend, ITEMS, shares=True)
    assert_same(shared, scored(backend, ITEMS, shares=False)[0])


@pytest.mark.parametrize("kind", ["qv", "ia3"])
@pytest.mark.parametrize("batch_tokens", [None, 500])
def test_the_tokens_of_a_prompt_are_read_once_a_view(kind: str, batch_tokens: int | None) -> None:
    backend = backend_of("llama", kind)
    views = VIEWS if kind != "ia3" else (FINETUNED,)
    items = tuple(TextItem(CONTEXT, f" {i:02d} bells", "0", str(i)) for i in range(20))
    _, n = scored(backend, items, shares=True, views=views, batch_tokens=batch_tokens)
    prompt = len(backend.codec.encode_prompt(CONTEXT))
    # The last token of the prompt predicts the completion, so it is read with it; a completion's last is never read.
    assert n == (1 + len(views)) * (padded(prompt - 1 + 1) + 20 * padded(len(" 00 bells")))


def test_many_prompts_with_options_take_two_passes() -> None:
    backend = backend_of("llama", "qv")
    items = tuple(
        TextItem(f"{i} " + "abcdefghijklmnopq"[: 14 + i], option, "0", f"{i}{option}")
        for i in range(4)
        for option in "wxyz"
    )
    engine = Engine(backend)
    with engine.opened() as source:
        assert source.continues
    with counted(backend) as tokens:
        engine.answer([Ask(items, VIEWS, REDUCERS, format="raw")])
    assert len(tokens) == 2


def test_next_tokens_after_one_context_share_it() -> None:
    backend = backend_of("gpt2", "qv")
    items = tuple(TextItem(CONTEXT + end, "", "0", end) for end in ("", "A", "The man", "It is so"))
    reducers: frozenset[Reducer] = frozenset({"kl", "top1"})
    shared, n_shared = scored(backend, items, shares=True, position="last", reducers=reducers)
    whole, n_whole = scored(backend, items, shares=False, position="last", reducers=reducers)
    assert_same(shared, whole)
    assert n_shared < n_whole / 2


def test_out_of_memory_while_sharing_goes_on_with_less() -> None:
    backend = backend_of("llama", "qv")
    whole, _ = scored(backend, ITEMS, shares=False)
    model, failed = backend.model.get_base_model(), []

    def fail(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].numel() > 160:
            failed.append(kwargs["input_ids"].shape)
            raise MemoryError

    handle = model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        shared, _ = scored(backend, ITEMS, shares=True)
    finally:
        handle.remove()
    assert failed
    assert_same(shared, whole)


def test_prompt_learning_reads_whole_rows() -> None:
    backend = backend_of("llama", "prompt")
    engine = Engine(backend)
    with engine.opened() as source:
        assert not source.continues
    (scores,) = engine.answer([Ask(ITEMS, (FINETUNED,), REDUCERS, format="raw")])
    assert np.isfinite(scores.values["kl"]).all()


def test_a_backend_in_numpy_reads_whole_rows() -> None:
    items = tuple(TextItem("a b c d e f g h i j k", f"w{i}", "0", str(i)) for i in range(30))
    (scores,) = Engine(DummyBackend()).answer([Ask(items, VIEWS[:1], REDUCERS)])
    assert scores.values["kl"].shape == (1, 30)
