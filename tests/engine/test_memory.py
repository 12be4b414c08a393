"""Out of memory: the engine goes on with less at a time and keeps what it has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.views import FINETUNED, View, rotations
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.engine.memory import fits, give_back, out_of_memory
from dlm_sway.engine.run import Engine
from dlm_sway.engine.sources import Blocks

FULL = (
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 68719476736 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
)
VIEWS = (FINETUNED, *rotations(seed=0, n_draws=6))


class Limited:
    """A source with room for so many view-tokens; its logits depend on the view and the token alone."""

    name = "limited"
    device = torch.device("cpu")
    stacks = True
    window = 64

    def __init__(self, room: float, error: BaseException = FULL[0]) -> None:
        self.room = room
        self.error = error
        self.calls: list[int] = []
        self.done: list[tuple[tuple[int, ...], View]] = []

    def views_per_pass(self, views: Sequence[View]) -> int:
        return max(1, len(views))

    def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View]) -> Blocks:
        self.calls.append((1 + len(views)) * ids.numel())
        if self.calls[-1] > self.room:
            raise self.error
        seen = ids[keep[:, 0], keep[:, 1]].double()
        columns = torch.arange(128.0, dtype=torch.float64)
        logits = torch.stack([torch.sin(seen[:, None] + columns * (1 + _mark(v))) for v in (None, *views)])
        yield slice(0, len(keep)), logits.float()
        self.done += [(tuple(row), v) for row in ids.tolist() for v in views]


def _mark(view: View | None) -> float:
    if view is None:
        return 0.0
    return 0.05 if view.kind == "adapter" else 0.1 * (1 + view.draw)


class Letters:
    """A backend of letters, held by nobody."""

    max_length = 64
    has_chat_template = False

    def __init__(self) -> None:
        self.codec = self

    def encode_pair(self, prompt: str, completion: str, **_: Any) -> Any:
        from dlm_sway.backends.base import Encoded

        return Encoded(np.array([1, *map(ord, prompt + completion)]), 1 + len(prompt))

    def exclusive(self) -> Any:
        return nullcontext()


def answered(room: float, *, batch_tokens: int = 4096, **options: Any) -> tuple[Scores, Limited, Engine]:
    engine = Engine(Letters(), batch_tokens=batch_tokens)  # type: ignore[arg-type]
    source = Limited(room, **options)
    engine._source = source
    items = tuple(TextItem("", chr(97 + i) * (3 + i), str(i), str(i)) for i in range(8))
    (scores,) = engine.answer([Ask(items, VIEWS, frozenset({"kl", "gain"}))])
    return scores, source, engine


@pytest.mark.parametrize("error", FULL, ids=lambda e: type(e).__name__ + str(e)[-12:])
def test_what_did_not_fit_is_scored_in_smaller_parts_with_the_same_result(error: BaseException) -> None:
    plenty, *_ = answered(float("inf"))
    scarce, source, _ = answered(100, error=error)
    for name, values in plenty.values.items():
        np.testing.assert_allclose(scarce.values[name], values, atol=1e-6)
    assert max(c for c in source.calls if c <= 100) > 30  # no smaller than it had to be


def test_nothing_that_was_kept_is_computed_again() -> None:
    _, source, _ = answered(100)
    assert len(source.done) == len(set(source.done)) == 8 * len(VIEWS)


def test_rows_are_halved_before_views() -> None:
    _, source, _ = answered(100)
    halved = [b / a for a, b in zip(source.calls, source.calls[1:], strict=False) if a > 100]
    assert all(ratio <= 0.67 for ratio in halved)
    _, source, _ = answered(
        40
    )  # a row of 10 tokens under 8 views is 80: views must be cut, to the least that a pass reads
    assert len(set(source.done)) == 8 * len(VIEWS)


def test_the_smaller_budget_stays_for_later_asks() -> None:
    _, source, engine = answered(100)
    before = len(source.calls)
    assert engine.batch_tokens <= 100
    engine.answer([Ask((TextItem("", "xyzxyz", "0", "0"), TextItem("", "uvw", "1", "1")), VIEWS, frozenset({"kl"}))])
    assert all(c <= 100 for c in source.calls[before:])


def test_a_single_row_under_a_single_view_that_does_not_fit_is_one_clear_error() -> None:
    with pytest.raises(CannotRunError, match=r"out of memory on \d+ tokens .*; score shorter texts"):
        answered(5)


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        answered(100, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_an_interruption_keeps_what_is_done() -> None:
    engine = Engine(Letters(), batch_tokens=64)  # type: ignore[arg-type]

    class Interrupted(Limited):
        def blocks(self, ids: Tensor, keep: Tensor, views: Sequence[View]) -> Blocks:
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            yield from super().blocks(ids, keep, views)

    source = engine._source = Interrupted(float("inf"))
    items = tuple(TextItem("", chr(97 + i) * 8, str(i), str(i)) for i in range(8))
    ask = Ask(items, VIEWS[:3], frozenset({"kl"}))
    with pytest.raises(KeyboardInterrupt):
        engine.answer([ask])
    done = list(source.done)
    assert done
    source.calls.clear()
    source.calls += [0] * 99
    engine.answer([ask])
    assert source.done[: len(done)] == done
    assert len(set(source.done)) == len(source.done) == 8 * 3


def test_a_failed_pass_holds_no_tensors() -> None:
    freed: list[int] = []

    class Large:
        def __del__(self) -> None:
            freed.append(1)

    def work() -> None:
        held = Large()
        raise FULL[0].with_traceback(None) if held else AssertionError

    assert not fits(work)
    FULL[0].__traceback__ = None  # the test's own error outlives the pass; a real one does not
    assert freed == [1]


def test_errors_are_told_apart_by_class_and_text() -> None:
    assert all(map(out_of_memory, FULL))
    assert not out_of_memory(RuntimeError("expected scalar type Float"))
    assert not out_of_memory(ValueError("not enough memory"))


def test_what_passes_have_freed_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr("dlm_sway.engine.memory._trim", lambda: given.append)
    _, source, _ = answered(float("inf"))
    assert given == [0] * len(source.calls)
    monkeypatch.setattr("dlm_sway.engine.memory._trim", lambda: None)
    give_back()  # a C library without it is no fault
    assert len(given) == len(source.calls)
