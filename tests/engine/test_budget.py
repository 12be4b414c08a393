from __future__ import annotations

import pytest

from dlm_sway.engine.budget import CPU_MOST, ELSEWHERE, view_tokens_a_pass


@pytest.mark.parametrize(
    ("asked", "device", "budget"),
    [
        (None, "cpu", CPU_MOST),
        (64, "cpu", 64),
        (8192, "cpu", CPU_MOST),
        (None, "cuda:0", ELSEWHERE),
        (64, "cuda", 64),
        (50_000, "mps", 50_000),
    ],
)
def test_a_pass_is_what_was_asked_for_and_on_a_cpu_no_more_than_is_fast(
    asked: int | None, device: str, budget: int
) -> None:
    assert view_tokens_a_pass(asked, device) == budget
