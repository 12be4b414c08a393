"""How a sequence longer than the context window is read: in windows, each token scored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlm_sway.core.errors import BadInputError


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
