"""The dummy's tokenizer: a word is a token, so a test can write the very tokens that it means."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import Encoded, Format, Messages, Tools
from dlm_sway.core.errors import BadInputError

PREFIX_ID: Final = 0
END_ID: Final = 1
_SPECIAL: Final = 2
_WORD: Final = re.compile(r"\s*\S+")
_NAMED: Final = re.compile(r"w(\d+)")


class DummyCodec:
    """Words to tokens: `w7` is token 7, any other word is hashed into the first half of the vocabulary.

    So a text of words such as `w40 w41`, named from the second half, shares no context with plain text.

    Args:
        vocab_size: K, at least 8.
        max_length: the context window, in tokens.
        chat_template: whether prompts can be rendered as a conversation.
        shows_tools: whether its template renders tools.
    """

    def __init__(self, *, vocab_size: int, max_length: int, chat_template: bool, shows_tools: bool = True) -> None:
        self._vocab_size = vocab_size
        self._max_length = max_length
        self._chat_template = chat_template
        self._shows_tools = shows_tools

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        return (END_ID,)

    @property
    def max_length(self) -> int:
        """Longest sequence that is read, in tokens."""
        return self._max_length

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be rendered as a conversation."""
        return self._chat_template

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the tokens of `text`, int64[N]; a text without a word has none."""
        return np.array([self._id(match[0]) for match in _WORD.finditer(text)], dtype=np.int64)

    def encode_prompt(self, prompt: str, *, format: Format = "raw") -> npt.NDArray[np.int64]:  # noqa: A002 (DESIGN 5's word)
        """Return the tokens of `prompt`, or the prefix token alone when there are none, int64[N >= 1].

        Raises:
            BadInputError: `chat` was asked without a template.
        """
        ids = self.encode(self._render(prompt) if self._use_chat(prompt, format) else prompt)
        return ids if ids.size else np.array([PREFIX_ID], dtype=np.int64)

    def encode_messages(
        self, messages: Messages, tools: Tools | None = None, *, add_generation_prompt: bool = True
    ) -> npt.NDArray[np.int64]:
        """Return the tokens of a conversation and of the tools offered in it.

        Raises:
            BadInputError: there is no template, or it ignores tools.
        """
        return self.encode(self._conversation(messages, tools, add_generation_prompt=add_generation_prompt))

    def encode_reply(self, messages: Messages, completion: str, tools: Tools | None = None) -> Encoded:
        """Encode a conversation and the reply to it once.

        Raises:
            BadInputError: as for `encode_messages`, or the reply is empty or holds no token.
        """
        return self._pair(self._conversation(messages, tools, add_generation_prompt=True), completion)

    def tools_refusal(self) -> str | None:
        """Return why tools cannot be shown to the model, or None when they can."""
        if not self._chat_template:
            return "the tokenizer has no chat template"
        return None if self._shows_tools else "the chat template ignores tools"

    def encode_pair(self, prompt: str, completion: str, *, format: Format = "auto") -> Encoded:  # noqa: A002 (DESIGN 5's word)
        """Encode prompt and completion once; a word that straddles the boundary belongs to the completion.

        Raises:
            BadInputError: the completion is empty or holds no token, or `chat` was asked without a template.
        """
        return self._pair(self._render(prompt) if self._use_chat(prompt, format) else prompt, completion)

    def decode(self, ids: npt.NDArray[np.int64]) -> str:
        """Return a text that encodes to `ids`, special tokens apart."""
        return "".join(f" w{i}" for i in ids.tolist() if i >= _SPECIAL)

    def _pair(self, head: str, completion: str) -> Encoded:
        if not completion:
            raise BadInputError("the completion is empty", remedy="give at least one character to score")
        words = list(_WORD.finditer(head + completion))
        start = next((i for i, word in enumerate(words) if word.end() > len(head)), None)
        if start is None:
            raise BadInputError(f"the completion {completion[:40]!r} holds no token")
        ids = [self._id(word[0]) for word in words]
        # A token is scored given something before it.
        return Encoded(np.array(ids if start else [PREFIX_ID, *ids], dtype=np.int64), max(start, 1))

    def _conversation(self, messages: Messages, tools: Tools | None, *, add_generation_prompt: bool) -> str:
        if not self._chat_template or (tools and not self._shows_tools):
            what = "the chat template ignores tools" if self._chat_template else "the tokenizer has no chat template"
            raise BadInputError(what, remedy="give prompts as plain text")
        offered = f"<tools> {json.dumps([dict(t) for t in tools])} " if tools else ""
        turns = " ".join(f"<{turn['role']}> {turn.get('content') or ''}" for turn in messages)
        return offered + turns + " <assistant> " * add_generation_prompt

    def _id(self, word: str) -> int:
        bare = word.strip()
        named = _NAMED.fullmatch(bare)
        if named and int(named[1]) < self._vocab_size:
            return int(named[1])
        digest = hashlib.blake2b(bare.encode(), digest_size=8).digest()
        return _SPECIAL + int.from_bytes(digest, "little") % (self._vocab_size // 2 - _SPECIAL)

    def _use_chat(self, prompt: str, format: Format) -> bool:  # noqa: A002 (DESIGN 5's word)
        if format == "chat" and not self._chat_template:
            raise BadInputError("the tokenizer has no chat template", remedy="use format: raw")
        return format == "chat" or (format == "auto" and bool(prompt) and self._chat_template)

    def _render(self, prompt: str) -> str:
        return f"<user> {prompt} <assistant> "
