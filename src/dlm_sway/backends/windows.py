"""How sequences are read: in windows where one is longer than the context window, in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError

_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a sequence that the model reads at once: it reads `ids[begin:end]` and scores `ids[first:end + 1]`.

    Attributes:
        begin: index of the first token read.
        end: index behind the last token read; `ids[end]` is predicted, never read.
        first: index of the first token scored, at least `begin + 1`.
    """

    begin: int
    end: int
    first: int


def windows(n_tokens: int, *, start: int, limit: int, where: str | None = None) -> Iterator[Window]:
    """Yield the windows that score the tokens `start` to `n_tokens - 1`, in order, each exactly once.

    The first window begins with the sequence. Each later one keeps half a window of context before its first scored
    token, as lm-evaluation-harness can in `get_rolling_token_windows`, so that no token is scored with hardly any.

    Args:
        n_tokens: length of the sequence.
        start: index of the first token to score, at least 1.
        limit: tokens that the model reads at most.
        where: what the sequence is, for errors.

    Raises:
        BadInputError: the tokens before `start` fill the window.
    """
    if start >= limit and start < n_tokens:
        raise BadInputError(
            f"the prompt has {start} tokens and the model reads {limit}",
            where=where,
            remedy="shorten the prompt; cutting it silently would change what is tested",
        )
    first = start
    while first < n_tokens:
        begin = 0 if first == start else first - limit // 2
        end = min(begin + limit, n_tokens - 1)
        yield Window(begin, end, first)
        first = end + 1


def length_sorted_batches(rows: Sequence[npt.NDArray[np.int64]]) -> list[list[int]]:
    """Group row indices of like length so that a padded batch holds at most `_BATCH_TOKENS` tokens."""
    out: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if out and (len(out[-1]) + 1) * len(rows[i]) <= _BATCH_TOKENS:
            out[-1].append(i)
        else:
            out.append([i])
    return out
