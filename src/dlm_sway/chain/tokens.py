"""Do the links read the same tokens? The same text and the same chat must give the same ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from dlm_sway.backends.api_read import ids_of, text_of
from dlm_sway.chain.result import Finding
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict

TEXTS: Final = (
    "The river rises in the hills and runs west for sixty miles.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n",
    "12,345.67 and 漢字, naïve café",
)
CHATS: Final = (
    ({"role": "user", "content": "Where does the river rise?"},),
    (
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Another one."},
    ),
)
_AROUND: Final = 3
_SHOWN: Final = 200

DOUBLED_BOS: Final = "doubled BOS"
MISSING_BOS: Final = "missing BOS"
NO_PROMPT: Final = "missing generation prompt"
TEMPLATE: Final = "another chat template"
TOKENIZER: Final = "another tokenizer"


class UnrenderedError(BadInputError):
    """A chat template that refuses a chat, or is none."""


class Reads(Protocol):
    """Something that turns text and chats into ids."""

    def text(self, text: str) -> list[int] | None:
        """Return the ids of a text, or None where it cannot be asked."""
        ...

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int] | None:
        """Return the ids of a chat up to the assistant's turn, or None where it has no template or cannot be asked.

        Raises:
            UnrenderedError: the template does not render it.
        """
        ...


class HFReads:
    """A tokenizer of transformers; with `template` in place of its own, and `add_bos` for chats as a server does."""

    def __init__(self, tokenizer: Any, *, template: str | None = None) -> None:
        """Read with `tokenizer`."""
        self.tokenizer = tokenizer
        self._template = template

    def text(self, text: str) -> list[int] | None:
        """Return the ids as the tokenizer makes them by default."""
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int] | None:
        """Return the ids of a rendered chat; the template writes its own bos.

        Raises:
            UnrenderedError: the template does not render it.
        """
        if not (self._template or self.tokenizer.chat_template):
            return None
        turns = [dict(m) for m in messages]
        try:
            rendered = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, chat_template=self._template
            )
        except Exception as refusal:  # a template is code of the model's maker and raises what it likes
            said = "".join(char if char.isprintable() else " " for char in f"{type(refusal).__name__}: {refusal}")
            raise UnrenderedError(" ".join(said.split())[:_SHOWN]) from refusal
        return list(self.tokenizer(str(rendered), add_special_tokens=False, verbose=False)["input_ids"])


class ServerReads:
    """A llama.cpp server, asked by `/tokenize` and `/apply-template` as it would read a request."""

    def __init__(self, client: Any) -> None:
        """Ask `client`."""
        self._client = client

    def text(self, text: str) -> list[int] | None:
        """Return the ids of a text with what the server puts before it.

        Raises:
            CannotRunError: it answers with what are no ids.
        """
        found = self._client.offers("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        ids = found.get("tokens") if isinstance(found, dict) else None
        return None if ids is None else ids_of(ids, self._client.url)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int] | None:
        """Return the ids of a chat.

        Raises:
            CannotRunError: it answers with what is no text, or with what are no ids.
        """
        found = self._client.offers("/apply-template", {"messages": [dict(m) for m in messages]})
        prompt = found.get("prompt") if isinstance(found, dict) else None
        return None if prompt is None else self.text(text_of(prompt, self._client.url))


def compare_tokens(reference: Reads, candidate: Reads, *, decode: Any, bos: int | None) -> Finding:
    """Return whether two links read alike; the first difference decides, and is shown.

    Args:
        reference: the tokenizer of training.
        candidate: the link.
        decode: ids to text, for what is shown.
        bos: id of the token that begins a text, or None.
    """
    asked, unknown = 0, ""
    for kind, thing in (*(("text", text) for text in TEXTS), *(("chat", chat) for chat in CHATS)):
        try:
            ours = getattr(reference, kind)(thing)
        except UnrenderedError as refusal:
            unknown = refusal.what
            continue
        try:
            theirs = getattr(candidate, kind)(thing) if ours is not None else None
        except UnrenderedError as refusal:
            what = f"its chat template does not render a chat that training's does: {refusal.what}"
            return _failed(TEMPLATE, what, {"kind": kind})
        if theirs is None:
            continue
        asked += 1
        if list(ours) != list(theirs):
            return _differing(kind, ours, theirs, decode=decode, bos=bos)
    if not asked:
        what = "it offers no way to see how it reads text (/tokenize), so ids were not compared"
        return Finding(step="tokens", verdict=Verdict.SKIP, message=what, remedy="llama.cpp's server offers it")
    if unknown:
        what = f"{asked} texts and chats give the same ids; training's own chat template does not render all: {unknown}"
        remedy = "mend the chat template beside the adapter, or else the base's"
        return Finding(step="tokens", verdict=Verdict.SKIP, message=what, remedy=remedy)
    return Finding(step="tokens", verdict=Verdict.PASS, message=f"{asked} texts and chats give the same ids")


def _differing(kind: str, ours: list[int], theirs: list[int], *, decode: Any, bos: int | None) -> Finding:
    cause = _cause(kind, ours, theirs, bos)
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    here, there = (decode(ids[at : at + _AROUND]) for ids in (ours, theirs))
    message = f"a {kind} differs from token {at} on: {here!r} in training, {there!r} here"
    evidence = {"kind": kind, "first_difference": at, "expected": ours[: at + 8], "found": theirs[: at + 8]}
    return _failed(cause, message, evidence)


def _failed(cause: str, message: str, evidence: dict[str, Any]) -> Finding:
    return Finding(
        step="tokens", verdict=Verdict.FAIL, cause=cause, message=message, remedy=_REMEDIES[cause], evidence=evidence
    )


def _cause(kind: str, ours: list[int], theirs: list[int], bos: int | None) -> str:
    if bos is not None and theirs == [bos, *ours]:
        return DOUBLED_BOS if ours[:1] == [bos] else TEMPLATE if kind == "chat" else "BOS that training did not have"
    if bos is not None and ours == [bos, *theirs]:
        return MISSING_BOS
    if kind == "chat" and len(theirs) < len(ours) and ours[: len(theirs)] == theirs:
        return NO_PROMPT
    return TEMPLATE if kind == "chat" else TOKENIZER


_REMEDIES: Final = {
    DOUBLED_BOS: "let either the template or the tokenizer add it: drop bos_token from the template, or add_bos_token",
    MISSING_BOS: "switch the adding of bos on, as in training",
    "BOS that training did not have": "switch the adding of bos off, as in training",
    NO_PROMPT: "render with add_generation_prompt",
    TEMPLATE: "give the server the chat template that the adapter was trained with (llama.cpp: --chat-template-file)",
    TOKENIZER: "convert the tokenizer beside the adapter, or else that of the base that it was trained on",
}
