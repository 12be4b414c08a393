"""Conversations that a model carries on with itself: fixed user turns, its own replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from dlm_sway.backends.base import ChatCodec, Messages, TextCodec
from dlm_sway.core.errors import BadInputError

FOLLOW_UPS: Final = (
    "Can you say more about that?",
    "Why is that so?",
    "Give me an example.",
    "What should I keep in mind about it?",
    "Summarise what you have told me so far.",
)
"""User turns that fit any conversation."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation so far.

    Attributes:
        prompt: the first user turn.
        replies: what the model wrote, a turn each.
        ended: why it cannot go on, or None.
    """

    prompt: str
    replies: tuple[str, ...] = ()
    ended: str | None = None

    def before(self, turn: int, follow_ups: Sequence[str]) -> Messages:
        """Return the conversation up to the user's turn number `turn`, the first being 0."""
        messages: list[dict[str, str]] = [{"role": "user", "content": self.prompt}]
        for i in range(turn):
            messages.append({"role": "assistant", "content": self.replies[i]})
            messages.append({"role": "user", "content": follow_ups[i % len(follow_ups)]})
        return tuple(messages)

    def replied(self, text: str) -> Dialogue:
        """Return it with one more reply; an empty one ends it."""
        if not text.strip():
            return replace(self, ended=f"nothing is written in turn {len(self.replies) + 1}")
        return replace(self, replies=(*self.replies, text))


def fits(messages: Messages, codec: TextCodec | None, *, room: int) -> str | None:
    """Return why a conversation has no room for a reply of `room` tokens, or None when it has.

    Raises:
        BadInputError: the template refuses the conversation.
    """
    if not isinstance(codec, ChatCodec):
        raise BadInputError("the backend renders no conversations", remedy="use a model with a chat template")
    n = len(codec.encode_messages(messages))
    if n + room <= codec.max_length:
        return None
    return f"the conversation has {n} tokens and the context window holds {codec.max_length}, with {room} for a reply"
