"""Text as bytes, and log-probs of tokens laid over them: what two models with two tokenizers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import Encoded, Format
from dlm_sway.core.errors import BadInputError

Ids: TypeAlias = npt.NDArray[np.int64]
F64: TypeAlias = npt.NDArray[np.float64]

START: Final = "\n"
"""What both models read before a text without a prompt, so that its first token has something before it."""


class ByteCodec:
    """A codec whose tokens are the bytes of UTF-8; it renders no conversations.

    Attributes:
        max_length: bytes that every model behind it can read, whatever its tokenizer makes of them.
        has_chat_template: never.
    """

    has_chat_template = False

    def __init__(self, *, max_length: int) -> None:
        """Read at most `max_length` bytes at a time."""
        self.max_length = max_length

    def encode(self, text: str) -> Ids:
        """Return the bytes of a text."""
        return np.frombuffer(text.encode(errors="replace"), dtype=np.uint8).astype(np.int64)

    def encode_prompt(self, prompt: str, *, format: Format = "raw") -> Ids:  # noqa: A002 (DESIGN 5's word)
        """Return the bytes of a prompt; a line feed where it is empty.

        Raises:
            BadInputError: `chat` was asked: each model would be shown a text of its own.
        """
        if format == "chat":
            raise BadInputError("two chat templates make two texts of one prompt", remedy="use format: raw")
        return self.encode(prompt or START)

    def encode_pair(self, prompt: str, completion: str, *, format: Format = "auto") -> Encoded:  # noqa: A002 (as above)
        """Return the bytes of both, split between them.

        Raises:
            BadInputError: the completion is empty, or `chat` was asked.
        """
        if not completion:
            raise BadInputError("the completion is empty", remedy="give at least one character to score")
        head = self.encode_prompt(prompt, format=format)
        return Encoded(np.concatenate([head, self.encode(completion)]), len(head))

    def decode(self, ids: Ids) -> str:
        """Return the text of bytes; of a character that is cut in half nothing."""
        return bytes(ids.tolist()).decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Piece:
    """A string that is read, and the part of it whose bytes are scored.

    Attributes:
        text: what is read.
        boundary: characters of it that are given; all later ones are scored.
        begin: index of the first scored byte of `text` among the bytes that were asked for.
        n_bytes: bytes that were asked for; those of a character that a cut left in half have no log-prob.
    """

    text: str
    boundary: int
    begin: int
    n_bytes: int


def piece_of(given: Ids, scored: Ids) -> Piece:
    """Return the string in bytes, which a window may begin or end in the middle of a character."""
    raw = bytes(given.tolist())
    while raw and raw[0] & 0xC0 == 0x80:  # noqa: PLR2004 (a byte inside a character)
        raw = raw[1:]
    # A character that a window cuts in half is scored on neither side: no tokenizer reads half of one.
    inside = 0
    while inside < len(scored) and scored[inside] & 0xC0 == 0x80:  # noqa: PLR2004 (as above)
        inside += 1
    head = (raw + bytes(scored[:inside].tolist())).decode(errors="ignore")
    tail = bytes(scored[inside:].tolist()).decode(errors="ignore")
    return Piece(head + tail, len(head), inside, len(scored))


def over_bytes(piece: Piece, ends: list[int], start: int, logprobs: F64) -> F64:
    """Return float64[n_bytes]: each token's log-prob in equal parts over those of its bytes that are scored.

    The sum is that of the tokens. A token that reaches over the boundary counts whole, as it does where a prompt ends
    inside a token; one that adds no character (a byte of one) falls on the byte before its end.

    Args:
        piece: what was read.
        ends: character offset at which each token ends.
        start: index of the first token that reaches beyond the boundary.
        logprobs: float64[N - start], of the tokens from there on.
    """
    at = np.cumsum([0, *(len(c.encode(errors="replace")) for c in piece.text)])
    first = int(at[piece.boundary])
    out = np.zeros(piece.n_bytes)
    done = piece.boundary
    for end, logprob in zip(ends[start:], logprobs, strict=True):
        low, high = int(at[done]) - first, int(at[max(end, done)]) - first
        low = low if low < high else max(0, high - 1)
        part = slice(piece.begin + low, piece.begin + max(high, low + 1))
        out[part] += logprob / (part.stop - part.start)
        done = max(done, end)
    return out
