"""Natural text in front of a prompt, as many of the model's tokens as asked for, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import ChatCodec, Encoded, Format, TextCodec
from dlm_sway.core.errors import BadInputError
from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import TextItem

Ids: TypeAlias = npt.NDArray[np.int64]

REGISTERS: Final = ("encyclopaedic", "news", "prose")
"""Kinds of control text that read on from one passage to the next; code or lists would be a break."""
_SEPARATORS: Final = ("\n\n", "\n", " ")
_TRIES: Final = 8


def fillers(n: int, codec: TextCodec, *, rng: np.random.Generator) -> tuple[Ids, ...]:
    """Return `n` texts of control passages as tokens, no passage in two of them, int64[N] each."""
    texts = [p.text for p in control_passages() if p.register in REGISTERS]
    order = rng.permutation(len(texts))
    parts = ("\n\n".join(texts[i] for i in order[start::n]) for start in range(n))
    return tuple(codec.encode_prompt(part, format="raw") for part in parts)


def encoded(item: TextItem, codec: TextCodec, format: Format) -> Encoded:  # noqa: A002 (DESIGN 5's word)
    """Return an item as the model reads it."""
    if item.messages and isinstance(codec, ChatCodec):
        return codec.encode_reply(item.messages, item.completion)
    return codec.encode_pair(item.prompt, item.completion, format=format)


def behind(item: TextItem, filler: Ids, n: int, codec: TextCodec, format: Format) -> TextItem:  # noqa: A002 (DESIGN 5's word)
    """Return the item with the end of `filler` before its prompt, so that exactly `n` more tokens precede its reply.

    The two are joined as text and encoded together, as a user's own text would be, so the number of tokens of the
    filler is found by trying: at the seam tokens may merge or split.

    Raises:
        BadInputError: the filler is too short, or no cut of it gives that number.
    """
    if n == 0:
        return item
    before = encoded(item, codec, format).start
    for separator in _SEPARATORS:
        k = n
        for _ in range(_TRIES):
            if not 0 < k < filler.size:
                break
            candidate = _after(item, codec.decode(filler[-k:]) + separator)
            extra = encoded(candidate, codec, format).start - before
            if extra == n:
                return candidate
            k += n - extra
    what = f"no natural text of exactly {n} tokens can be put before it"
    raise BadInputError(what, where=item.label, remedy="give another length in context_lengths")


def _after(item: TextItem, text: str) -> TextItem:
    if not item.messages:
        return replace(item, prompt=text + item.prompt)
    last = item.messages[-1]
    return replace(item, messages=(*item.messages[:-1], {**last, "content": f"{text}{last.get('content') or ''}"}))


def with_tail(item: TextItem, codec: TextCodec, *, span: int) -> TextItem | None:
    """Return a text without a prompt split so that its end, at most `span` tokens, is what is scored.

    It is cut between words, or between characters where there are no words; None where nothing is left before the cut.
    """
    text = item.completion
    best = None
    for cut in reversed(_cuts(text)):
        if not text[cut:].strip():
            continue
        candidate = replace(item, prompt=text[:cut], completion=text[cut:])
        best = best or candidate
        if codec.encode_pair(candidate.prompt, candidate.completion, format="raw").n_scored > span:
            break
        best = candidate
    return best


def _cuts(text: str) -> Sequence[int]:
    """Return places that have something before them: ends of words, else characters."""
    words = [i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace() and text[:i].strip()]
    return words or [i for i in range(1, len(text)) if text[:i].strip()]
