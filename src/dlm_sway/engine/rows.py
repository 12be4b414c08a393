"""From items to token rows: encoded once, cut to the context window, every token scored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import TextCodec
from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.ask import Ask, TextItem


@dataclass(frozen=True, slots=True)
class Row:
    """A token sequence and the logits wanted of it.

    Attributes:
        ids: int64[n], what the model reads.
        first: index of the first logit wanted; all later ones are wanted too.
        targets: int64[n - first], the token that each wanted logit predicts; -1 where there is none.
    """

    ids: npt.NDArray[np.int64]
    first: int
    targets: npt.NDArray[np.int64]

    @property
    def key(self) -> tuple[bytes, int, int]:
        """Identity by content, so that equal rows of different probes are scored once."""
        return self.ids.tobytes(), self.first, int(self.targets[-1])

    @property
    def n_scored(self) -> int:
        """Number of wanted logits."""
        return len(self.targets)


def rows_of(item: TextItem, ask: Ask, codec: TextCodec) -> tuple[Row, ...]:
    """Return the rows of one item, in order; more than one only when it exceeds the context window.

    Raises:
        BadInputError: the item holds nothing to score, or its prompt alone fills the window.
    """
    if ask.position == "last":
        ids = codec.encode_prompt(item.prompt or item.completion)[-codec.max_length :]
        return (Row(ids, len(ids) - 1, np.array([-1])),)
    pair = codec.encode_pair(item.prompt, item.completion, format=ask.format)
    end = len(pair.ids) if ask.max_tokens is None else min(len(pair.ids), pair.start + ask.max_tokens)
    return tuple(_windows(pair.ids[:end], pair.start, codec.max_length, item))


def _windows(ids: npt.NDArray[np.int64], start: int, limit: int, item: TextItem) -> Iterator[Row]:
    """Score ids[start:] in windows of `limit` tokens that overlap by half, so that context is never short."""
    if start >= limit:
        raise BadInputError(
            f"the prompt has {start} tokens and the model reads {limit}",
            where=item.label,
            remedy="shorten the prompt; cutting it silently would change what is tested",
        )
    done = start
    while done < len(ids):
        begin = 0 if len(ids) - 1 <= limit or done == start else done - limit // 2
        stop = min(len(ids), begin + limit + 1)
        # ids[stop - 1] is only predicted, never read.
        yield Row(ids[begin : stop - 1], done - 1 - begin, ids[done:stop])
        done = stop
