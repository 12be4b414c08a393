"""Paragraphs of a text with the numbers of their lines; a block of code in triple backticks is never cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from dlm_sway.data.files import Line

_FENCE: Final = re.compile(r" {0,3}(`{3,})(.*)$")


class CodeFence:
    """Knows, line by line, whether it stands in a block of triple backticks (as CommonMark closes them)."""

    def __init__(self) -> None:
        """Begin outside."""
        self._length = 0
        self.opened_at = 0

    def inside(self, number: int, text: str) -> bool:
        """Return whether this line belongs to a block; its first and last line do."""
        match = _FENCE.match(text)
        if not self._length:
            if match and "`" not in match[2]:
                self._length, self.opened_at = len(match[1]), number
                return True
            return False
        if match and len(match[1]) >= self._length and not match[2].strip():
            self._length = 0
        return True

    @property
    def is_open(self) -> bool:
        """Whether a block was opened and not closed."""
        return self._length > 0


def paragraphs(lines: Iterable[Line], *, code: bool = False) -> Iterator[list[Line]]:
    """Yield runs of lines between blank ones; with `code`, blank lines inside triple backticks part nothing."""
    fence, block = CodeFence(), list[Line]()
    for number, text in lines:
        in_code = code and fence.inside(number, text)
        if in_code or text.strip():
            block.append((number, text))
        elif block:
            yield block
            block = []
    if block:
        yield block


def joined(block: Iterable[Line]) -> str:
    """Return lines as one text."""
    return "\n".join(text for _, text in block)


def numbered(text: str, first: int) -> list[Line]:
    """Return the lines of a text, the first of them numbered `first`."""
    return list(enumerate(text.split("\n"), start=first))
