"""Canonical shapes: a row is always computed at the same width and never among too few rows, whatever else is read.

Kernels round by the shape they are called with. Attention over another padded length, or a matrix product of very few
rows, gives other last bits, so a result would depend on the token budget and on what a cache already knew. At its own
canonical width, in products of at least `ROWS` rows, a row comes out bit for bit the same beside any other rows.
"""

from __future__ import annotations

from typing import Final

ROWS: Final = 32  # of a dense product; MKL and oneDNN take other kernels below 8, on some processors below 16
VIEW_ROWS: Final = 8  # of each view's own low-rank product, batched over views
_SHORT = 16  # tokens; among shorter rows, such as options behind a prompt, padding would be the larger part
_SHORT_STEP = 2  # attention of an odd number of queries takes another kernel on some threads
_STEP = 4
_SHARE = 5  # bits: a step is a 16th to a 32nd of the row


def padded(n: int) -> int:
    """Return the canonical width of `n` tokens, at least 1: up to the next step of about 3 % of it."""
    step = _SHORT_STEP if n <= _SHORT else max(_STEP, 1 << max(0, (n - 1).bit_length() - _SHARE))
    return -(-n // step) * step


def rows_for(n_views: int, width: int) -> int:
    """Return how many rows of `width` a pass under `n_views` views must have at least."""
    return max(-(-VIEW_ROWS // width), -(-ROWS // (n_views * width)))
