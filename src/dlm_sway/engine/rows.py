"""From items to token rows: encoded once, cut to the context window, every token scored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import ChatCodec, Encoded, TextCodec
from dlm_sway.backends.windows import windows
from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.ask import Ask, Span, TextItem


@dataclass(frozen=True, slots=True)
class Row:
    """A token sequence and the logits wanted of it.

    Attributes:
        ids: int64[n], what the model reads.
        first: index of the first logit wanted; all later ones are wanted too.
        targets: int64[n - first], the token that each wanted logit predicts; -1 where there is none.
        head: leading tokens that are read once for all rows that have them, at most `first`; 0 to read the row whole.
    """

    ids: npt.NDArray[np.int64]
    first: int
    targets: npt.NDArray[np.int64]
    head: int = 0

    @property
    def key(self) -> tuple[bytes, int, int, int]:
        """Identity by content, so that equal rows of different probes are scored once.

        The head is part of it: a row that was read in two steps differs from one that was read whole by rounding.
        """
        return self.ids.tobytes(), self.first, int(self.targets[-1]), self.head

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


def right_padded(rows: Sequence[Row], width: int, *, height: int) -> npt.NDArray[np.int64]:
    """Return ids, int64[n, width]; the last row stands there again until there are `height`."""
    ids = np.zeros((max(len(rows), height), width), dtype=np.int64)
    for i, row in enumerate([*rows, *[rows[-1]] * (len(ids) - len(rows))]):
        ids[i, : len(row.ids)] = row.ids
    return ids


def _rows(item: TextItem, ask: Ask, codec: TextCodec) -> tuple[Row, ...]:
    if ask.position == "last":
        return (_last(_given(item, ask, codec), codec.max_length, item),)
    if ask.max_tokens is not None and ask.max_tokens < 1:
        raise BadInputError(f"max_tokens is {ask.max_tokens}", where=item.label, remedy="score at least one token")
    if ask.span is not None:
        return (_span(item, ask.span, codec),)
    pair = _pair(item, ask, codec)
    n_tokens = len(pair.ids) if ask.max_tokens is None else min(len(pair.ids), pair.start + ask.max_tokens)
    parts = windows(n_tokens, start=pair.start, limit=codec.max_length, where=item.label)
    return tuple(Row(pair.ids[w.begin : w.end], w.first - 1 - w.begin, pair.ids[w.first : w.end + 1]) for w in parts)


def _pair(item: TextItem, ask: Ask, codec: TextCodec) -> Encoded:
    if not item.messages:
        return codec.encode_pair(item.prompt, item.completion, format=ask.format)
    return _chat(item, codec).encode_reply(item.messages, item.completion)


def _chat(item: TextItem, codec: TextCodec) -> ChatCodec:
    """Return the codec as one that renders conversations."""
    if item.prompt:
        raise BadInputError("holds both a prompt and a conversation", where=item.label, remedy="keep one of them")
    if not isinstance(codec, ChatCodec):
        remedy = "give prompts as plain text"
        raise BadInputError("the backend renders no conversations", where=item.label, remedy=remedy)
    return codec


def _given(item: TextItem, ask: Ask, codec: TextCodec) -> npt.NDArray[np.int64]:
    """Return the tokens after which the next one is asked for: the prompt, or of an item without one its text."""
    if item.messages:
        return _chat(item, codec).encode_messages(item.messages)
    if item.prompt or not item.completion:
        return codec.encode_prompt(item.prompt, format=ask.format)
    if ask.format == "chat":  # then a text without a prompt is the answer to an empty one, as where it is scored
        return codec.encode_pair("", item.completion, format="chat").ids
    return codec.encode_prompt(item.completion, format="raw")


def _last(ids: npt.NDArray[np.int64], limit: int, item: TextItem) -> Row:
    if len(ids) > limit:
        raise BadInputError(
            f"the prompt has {len(ids)} tokens and the model reads {limit}",
            where=item.label,
            remedy="shorten the prompt; cutting it silently would change what is tested",
        )
    return Row(ids, len(ids) - 1, np.array([-1], dtype=np.int64))


def _span(item: TextItem, span: Span, codec: TextCodec) -> Row:
    """Return the row of one piece of an item, cut by tokens."""
    if item.prompt or not 0 <= item.at <= 1 or min(span.given, span.scored) < 1:
        raise BadInputError("a span is a piece of a text without a prompt, somewhere between its ends")
    ids = codec.encode_pair("", item.completion, format="raw").ids
    # What texts begin with is kept: without it some models give nonsense.
    begins = ids[:1] if ids[0] == codec.encode_prompt("", format="raw")[0] else ids[:0]
    text = ids[len(begins) :]
    given, scored = span.given, span.scored
    if len(text) < given + scored:
        given = len(text) // 2
        scored = len(text) - given
    first = given + round(item.at * (len(text) - given - scored))
    read = np.concatenate([begins, text[first - given : first + scored]])
    before = len(begins) + given
    if before < 1 or len(read) - 1 > codec.max_length:
        raise BadInputError(
            f"a span of {given} and {scored} tokens does not fit: the model reads {codec.max_length}",
            remedy="use longer texts or shorter spans",
        )
    return Row(read[:-1], before - 1, read[before:])
