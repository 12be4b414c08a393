"""What the metadata of a GGUF file says of text: template, bos, eos and vocabulary, against the base's tokenizer."""

from __future__ import annotations

from typing import Any, Final

from dlm_sway.chain.result import Finding
from dlm_sway.chain.tokens import HFReads
from dlm_sway.core.result import Verdict

_KEYS: Final = {"bos": "tokenizer.ggml.bos_token_id", "eos": "tokenizer.ggml.eos_token_id"}


def value_of(reader: Any, key: str) -> Any:
    """Return a value of the metadata, or None."""
    field = reader.fields.get(key)
    return None if field is None else field.contents()


def judge_metadata(reader: Any, tokenizer: Any) -> Finding | None:
    """Return what is wrong with the vocabulary or its special tokens, or None."""
    tokens = value_of(reader, "tokenizer.ggml.tokens") or []
    vocabulary = tokenizer.get_vocab()
    wrong = [t for t, i in vocabulary.items() if not (i < len(tokens) and tokens[i] == t)]
    if wrong:
        return _failed("another vocabulary", f"{len(wrong)} tokens stand elsewhere, such as {wrong[0]!r}")
    for name, key in _KEYS.items():
        ours, theirs = getattr(tokenizer, f"{name}_token_id"), value_of(reader, key)
        if ours is not None and theirs is not None and ours != theirs:
            return _failed(f"another {name}", f"{name} is token {theirs} in the file and {ours} in the tokenizer")
    return None


class GgufReads(HFReads):
    """A GGUF file's way to read: the base's tokenizer with the file's own template and rule for bos."""

    def __init__(self, reader: Any, tokenizer: Any) -> None:
        """Take both from the metadata."""
        super().__init__(tokenizer, template=value_of(reader, "tokenizer.chat_template"))
        self._has_template = self._template is not None
        self._adds_bos = value_of(reader, "tokenizer.ggml.add_bos_token")
        self._bos = value_of(reader, _KEYS["bos"])

    def text(self, text: str) -> list[int] | None:
        """Return the ids, with bos as the file says."""
        plain = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if self._adds_bos is None:
            return super().text(text)
        return [int(self._bos), *plain] if self._adds_bos and self._bos is not None else plain

    def chat(self, messages: Any) -> list[int] | None:
        """Return the ids of a chat: a server puts bos before it too, unless the template already did."""
        if not self._has_template:
            return None
        return super().chat(messages)


def _failed(cause: str, message: str) -> Finding:
    remedy = "convert the tokenizer beside the adapter, or else that of the base that it was trained on"
    return Finding(step="static", verdict=Verdict.FAIL, cause=cause, message=message, remedy=remedy)
