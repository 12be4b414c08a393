"""Typed sections: what a fine-tune's data is made of, whatever file it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

SectionKind: TypeAlias = Literal["prose", "instruction", "preference", "tool", "chat"]
KINDS: Final[tuple[SectionKind, ...]] = ("prose", "instruction", "preference", "tool", "chat")
Message: TypeAlias = Mapping[str, Any]
"""One turn: `role`, `content` (a string), and where it has them `tool_calls` (each `{name, arguments}`), `name`, the
assistant's reasoning under the key that its chat template reads, or a `weight` of 0 where it was not trained on."""

_ID_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Section:
    """One example a fine-tune was trained on, or one part of a document.

    Attributes:
        kind: what it is.
        prompt: what is given; empty for prose. Of a conversation: what stands before its first reply.
        completion: what is learned: the text, the answer, the chosen reply, the first reply of a conversation.
        source: the file or data set as the user named it.
        line: 1-based line (of a table: row) where it starts.
        rejected: the reply that was not preferred; preference only.
        messages: the whole conversation; chat and tool only.
        tools: the tools that were offered, in the order given.
        title: the heading or name it stands under; may be empty.
        cluster: what it varies together with, where the data say so.
        part_of: id of the section of a document that this is a part of; empty where it is whole.
        by_paragraph: whether blank lines part it into passages that stand for themselves, as in a document.
        nth: its place in an array of records, from 0, where it is not the first that starts on that line; else 0.
        n_reasoned: its replies that hold reasoning beside their words, which is not scored.
    """

    kind: SectionKind
    prompt: str
    completion: str
    source: str
    line: int
    rejected: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    title: str = ""
    cluster: str | None = None
    part_of: str = ""
    by_paragraph: bool = False
    nth: int = 0
    n_reasoned: int = 0

    @property
    def where(self) -> str:
        """Its place, as errors and reports name it."""
        return place(self.source, self.line, self.nth)

    @property
    def id(self) -> str:
        """The id of its document section, else of its own content; the same in whatever file it stands."""
        return self.part_of or content_id(canonical_text(self))

    @property
    def key(self) -> str:
        """A hash of its own content, so that two parts of one section differ."""
        return content_id(canonical_text(self))


def place(source: str, line: int, nth: int = 0) -> str:
    """Return `file:line`; `file[nth]:line` for a record that shares its line with others, so no two have one place."""
    return f"{source}[{nth}]:{line}" if nth else f"{source}:{line}"


def canonical_text(section: Section) -> str:
    """Return the content of a section as one text, in which equal sections are equal."""
    if section.kind == "prose":
        return section.completion
    if section.messages:
        return json.dumps([section.messages, section.tools], sort_keys=True, ensure_ascii=False, default=str)
    if section.kind == "preference":
        return f"### Prompt\n{section.prompt}\n### Chosen\n{section.completion}\n### Rejected\n{section.rejected}"
    return f"### Q\n{section.prompt}\n### A\n{section.completion}"


def content_id(text: str) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a text's canonical form.

    Canonical is: line ends as LF, no blanks at either end, UTF-8.
    """
    plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    return hashlib.sha256(plain.encode("utf-8", errors="surrogatepass")).hexdigest()[:_ID_DIGITS]


def counts_by_kind(sections: Iterable[Section]) -> dict[SectionKind, int]:
    """Return how many sections there are of each kind that occurs, in the order of `KINDS`."""
    found = [section.kind for section in sections]
    return {kind: found.count(kind) for kind in KINDS if kind in found}
