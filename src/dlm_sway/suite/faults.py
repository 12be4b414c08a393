"""What is wrong with a suite file: all of it in one error, each with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from dlm_sway.core.errors import BadInputError

Keys: TypeAlias = "tuple[str | int, ...]"
"""The way to a value: keys and indices from the root."""

_MOST: Final = 50


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line and a column, both counted from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        """Return it as editors take it."""
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        place: where.
        what: what, with the offending value.
        remedy: what to do, such as the word that was meant; may be empty.
    """

    place: Place
    what: str
    remedy: str = ""


class SpecError(BadInputError):
    """A suite file with faults: a line for each, in the order of the file.

    Args:
        path: the file.
        faults: what is wrong; at least one.
    """

    def __init__(self, path: Path, faults: Iterable[Fault]) -> None:
        """Put the faults in order, each once."""
        self.path = path
        self.faults = tuple(sorted(dict.fromkeys(faults), key=lambda fault: fault.place))
        first = self.faults[0]
        super().__init__(first.what, where=f"{path}:{first.place}", remedy=first.remedy or None)
        self.args = ("\n".join(self.lines()),)

    def lines(self) -> tuple[str, ...]:
        """Return `file:line:column: what; remedy` for each fault."""
        shown = [self._line(fault) for fault in self.faults[:_MOST]]
        more = len(self.faults) - _MOST
        return (*shown, f"{self.path}: and {more} more") if more > 0 else tuple(shown)

    def one_line(self) -> str:
        """Return all of them, parted by bars."""
        return " | ".join(self.lines())

    def _line(self, fault: Fault) -> str:
        text = f"{self.path}:{fault.place}: {fault.what}" + (f"; {fault.remedy}" if fault.remedy else "")
        return " ".join(text.split())


def did_you_mean(word: object, known: Sequence[str], *, noun: str = "known") -> str:
    """Return `did you mean 'x'?`, or the words that there are where none is near."""
    near = difflib.get_close_matches(str(word), known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"{noun}: {', '.join(known)}" if known else ""
