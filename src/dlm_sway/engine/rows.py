"""From items to token rows: encoded once, cut to the context window, every token scored once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import TextCodec
from dlm_sway.backends.windows import windows
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
        BadInputError: the item holds nothing to score, or what comes before the first scored token fills the window.
    """
    try:
        return _rows(item, ask, codec)
    except BadInputError as e:
        if e.where is not None:
            raise
        raise BadInputError(e.what, where=item.label, remedy=e.remedy) from None


def _rows(item: TextItem, ask: Ask, codec: TextCodec) -> tuple[Row, ...]:
    if ask.position == "last":
        return (_last(codec.encode_prompt(item.prompt or item.completion), codec.max_length, item),)
    if ask.max_tokens is not None and ask.max_tokens < 1:
        raise BadInputError(f"max_tokens is {ask.max_tokens}", where=item.label, remedy="score at least one token")
    pair = codec.encode_pair(item.prompt, item.completion, format=ask.format)
    n_tokens = len(pair.ids) if ask.max_tokens is None else min(len(pair.ids), pair.start + ask.max_tokens)
    parts = windows(n_tokens, start=pair.start, limit=codec.max_length, where=item.label)
    return tuple(Row(pair.ids[w.begin : w.end], w.first - 1 - w.begin, pair.ids[w.first : w.end + 1]) for w in parts)


def _last(ids: npt.NDArray[np.int64], limit: int, item: TextItem) -> Row:
    if len(ids) > limit:
        raise BadInputError(
            f"the prompt has {len(ids)} tokens and the model reads {limit}",
            where=item.label,
            remedy="shorten the prompt; cutting it silently would change what is tested",
        )
    return Row(ids, len(ids) - 1, np.array([-1], dtype=np.int64))
