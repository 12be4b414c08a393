"""How many view-tokens a pass reads at most."""

from __future__ import annotations

from typing import Any, Final

CPU_MOST: Final = 2048
"""A GEMM of this height is within 5 % of its peak rate on 2 cores, so larger passes gain nothing; on one of two
machines passes of 8,192 took 1.2 times as long a token, on the other as long (`pass_growth` in benchmarks/speed)."""
ELSEWHERE: Final = 16_384
"""Launches are what small passes cost on a GPU (docs/performance.md); where memory ends sooner, passes are halved."""


def view_tokens_a_pass(asked: int | None, device: Any) -> int:
    """Return the budget of a pass: what was asked for, on a CPU no more than what is fast there.

    Args:
        asked: a user's limit, or None for the device's own.
        device: a torch device or its name.
    """
    if str(device).partition(":")[0] != "cpu":
        return asked or ELSEWHERE
    return min(asked or CPU_MOST, CPU_MOST)
