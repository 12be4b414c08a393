"""Text to tokens with the rules of DESIGN 5: one encoding a text, split by character offsets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import Encoded, Format, Messages, Tools
from dlm_sway.core.errors import BadInputError

_UNBOUNDED = 10**9  # tokenizers without a limit report a huge sentinel
_IGNORES_TOOLS = "the chat template ignores tools: it renders the same text with and without them"
_WORDS = "the words of a reply"
_SAMPLE_TOOL = {
    "type": "function",
    "function": {"name": "ring", "description": "Ring a bell.", "parameters": {"type": "object", "properties": {}}},
}


class TextEncoder:
    """A Hugging Face tokenizer with the rules that make its numbers comparable."""

    def __init__(self, tokenizer: Any, *, max_length: int, stop_ids: Iterable[int] = ()) -> None:
        """Wrap `tokenizer`.

        Args:
            tokenizer: of the base, or the one that the adapter was trained with.
            max_length: the context window.
            stop_ids: tokens that end a text, beside the tokenizer's own: trainers give a base's chat turns an end that
                the base's settings do not know, and save it with the tokenizer.
        """
        self.tokenizer = tokenizer
        self.stop_ids = frozenset((*stop_ids, *token_ids(getattr(tokenizer, "eos_token_id", None))))
        self._max_length = max_length

    @property
    def max_length(self) -> int:
        """Longest sequence the model can read, in tokens."""
        return self._max_length

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer carries a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def prefix_id(self) -> int:
        """Token that stands before a text which has none: bos, else eos, else the first of the vocabulary."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the tokens of `text` as the tokenizer makes them by default, int64[N]."""
        return np.asarray(self.tokenizer(text, verbose=False)["input_ids"], dtype=np.int64)

    def encode_prompt(self, prompt: str, *, format: Format = "raw") -> npt.NDArray[np.int64]:  # noqa: A002 (DESIGN 5's word)
        """Return the tokens of `prompt`, or the prefix token alone when there are none, int64[N >= 1].

        Raises:
            BadInputError: `chat` was asked without a template.
        """
        if self._use_chat(prompt, format):
            return self._encode_rendered(self._render(prompt))
        ids, _ = self._with_ends(prompt, special=True)
        return ids if ids.size else np.array([self.prefix_id], dtype=np.int64)

    def encode_messages(
        self, messages: Messages, tools: Tools | None = None, *, add_generation_prompt: bool = True
    ) -> npt.NDArray[np.int64]:
        """Return the tokens of a conversation, and of the tools offered in it, as the chat template writes them.

        Raises:
            BadInputError: there is no template, it refuses the conversation, or it shows the tools nowhere.
        """
        return self._encode_rendered(self._conversation(messages, tools, add_generation_prompt=add_generation_prompt))

    def encode_reply(self, messages: Messages, completion: str, tools: Tools | None = None) -> Encoded:
        """Encode a conversation and the reply to it once and find the first token that reaches into the reply.

        Raises:
            BadInputError: as for `encode_messages`, or the reply is empty or holds no token.
        """
        prompt = self._conversation(messages, tools, add_generation_prompt=True)
        return self._pair(self._before_reply(messages, completion, tools, prompt), completion, special=False)

    def tools_refusal(self) -> str | None:
        """Return why tools cannot be shown to the model, or None when they can."""
        try:
            self.encode_messages(({"role": "user", "content": "Hello"},), (_SAMPLE_TOOL,))
        except BadInputError as refusal:
            return refusal.what
        return None

    def encode_pair(self, prompt: str, completion: str, *, format: Format = "raw") -> Encoded:  # noqa: A002 (DESIGN 5's word)
        """Encode prompt and completion once and find the first token that reaches into the completion.

        Args:
            prompt: what is given; may be empty.
            completion: what is scored.
            format: `chat` renders prompt and completion as a conversation through the chat template; `auto` does so
                where there is a prompt and a template.

        Raises:
            BadInputError: the completion is empty or holds no token, or `chat` was asked without a template.
        """
        if not self._use_chat(prompt, format):
            return self._pair(prompt, completion, special=True)
        head = self._before_reply(_asking(prompt), completion, None, self._render(prompt))
        # The template writes its own bos, so the tokenizer must not add a second one.
        return self._pair(head, completion, special=False)

    def decode(self, ids: npt.NDArray[np.int64]) -> str:
        """Return the text of `ids` without special tokens."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    def spell(self, ids: npt.NDArray[np.int64]) -> str:
        """Return the text that a server reads as `ids`: special tokens written out, save a bos that it adds itself."""
        listed = ids.tolist()
        if listed and listed[0] == self.tokenizer.bos_token_id:
            listed = listed[1:]
        return str(self.tokenizer.decode(listed, skip_special_tokens=False))

    def tokens(self, text: str) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Return the tokens of a text, int64[N], and the character offset at which each ends; special ones end at 0.

        Raises:
            BadInputError: the tokenizer gives no offsets.
        """
        return self._with_ends(text, special=True)

    def _pair(self, head: str, completion: str, *, special: bool) -> Encoded:
        if not completion:
            raise BadInputError("the completion is empty", remedy="give at least one character to score")
        ids, ends = self._with_ends(head + completion, special=special)
        start = next((i for i, end in enumerate(ends) if end > len(head)), len(ids))
        if start == len(ids):
            raise BadInputError(f"the completion {completion[:40]!r} holds no token")
        if start == 0 and len(ids) == 1:
            ids = np.concatenate([np.array([self.prefix_id], dtype=np.int64), ids])
        # The first token of a text is not scored where the tokenizer puts nothing before it: a bos that training never
        # showed (a chat model's is often its turn marker) would change the odds of every token after it.
        return Encoded(ids, max(start, 1))

    def _conversation(self, messages: Messages, tools: Tools | None, *, add_generation_prompt: bool) -> str:
        if not self.has_chat_template:
            raise BadInputError("the tokenizer has no chat template", remedy="give prompts as plain text")
        text = self._templated(messages, tools, add_generation_prompt=add_generation_prompt)
        if tools and text == self._templated(messages, None, add_generation_prompt=add_generation_prompt):
            raise BadInputError(_IGNORES_TOOLS, remedy="use a model whose chat template shows tools")
        return text

    def _use_chat(self, prompt: str, format: Format) -> bool:  # noqa: A002 (DESIGN 5's word)
        if format == "chat" and not self.has_chat_template:
            raise BadInputError("the tokenizer has no chat template", remedy="use format: raw")
        return format == "chat" or (format == "auto" and bool(prompt) and self.has_chat_template)

    def _render(self, prompt: str) -> str:
        return self._templated(_asking(prompt), None, add_generation_prompt=True)

    def _before_reply(self, messages: Messages, reply: str, tools: Tools | None, prompt: str) -> str:
        """Return what stands before a reply that was given, as in training; mostly that is the generation `prompt`.

        Qwen3's template writes an empty thought there, Llama 2's a space. Where a template refuses the reply or changes
        its words, it is the generation prompt.
        """
        try:
            given = self._finished(messages, reply, tools)
            if _leads_to(prompt, reply, given):
                return prompt
            head, found, _ = self._finished(messages, _WORDS, tools).rpartition(_WORDS)
        except BadInputError:
            return prompt
        return head if found and _leads_to(head, reply, given) else prompt

    def _finished(self, messages: Messages, reply: str, tools: Tools | None) -> str:
        answer = {"role": "assistant", "content": reply}
        return self._templated((*messages, answer), tools, add_generation_prompt=False)

    def _templated(self, messages: Messages, tools: Tools | None, *, add_generation_prompt: bool) -> str:
        turns = [dict(turn) for turn in messages]
        offered = {"tools": [dict(tool) for tool in tools]} if tools else {}
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt, **offered
            )
        except Exception as refusal:  # a template is code of the model's maker and raises what it likes
            raise BadInputError(
                f"the chat template refuses this conversation: {type(refusal).__name__}: {str(refusal)[:200]}",
                remedy="give the turns that this model was made for, or prompts as plain text",
            ) from refusal
        return str(text)

    def _encode_rendered(self, text: str) -> npt.NDArray[np.int64]:
        # The template writes its own bos, so the tokenizer must not add a second one.
        out = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return np.asarray(out["input_ids"], dtype=np.int64)

    def _with_ends(self, text: str, *, special: bool) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Return tokens and the character offset at which each ends; special tokens end at 0."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise BadInputError(
                "the tokenizer gives no character offsets", remedy="convert it to a fast tokenizer (tokenizer.json)"
            )
        out = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(out["input_ids"], dtype=np.int64)
        ends = [int(end) for _, end in out["offset_mapping"]]
        # A trailing eos that the tokenizer appends is not the user's text, so it is neither scored nor read.
        while len(ends) > 1 and ends[-1] == 0:
            ends.pop()
        return ids[: len(ends)], ends


def token_ids(found: int | Iterable[int] | None) -> tuple[int, ...]:
    """Return the ids that a model's settings name for one purpose: one, several or none."""
    return (found,) if isinstance(found, int) else tuple(found or ())


def _asking(prompt: str) -> Messages:
    return ({"role": "user", "content": prompt},)


def _leads_to(head: str, reply: str, text: str) -> bool:
    """Return whether `text` goes on after `head` with the reply, whose ends a template may strip."""
    return text.startswith((head + reply, head + reply.strip()))


def context_window(config: Any, tokenizer: Any) -> int:
    """Return the context window in tokens that model config and tokenizer agree on."""
    config = config.get_text_config()  # of a model of several parts
    limits = [
        getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    ]
    limits.append(getattr(tokenizer, "model_max_length", None))
    return int(min((x for x in limits if isinstance(x, int) and 0 < x < _UNBOUNDED), default=2048))
