"""What a reader gives, record by record: a section, or a record left out and why. Nothing is dropped unsaid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is well formed and of no use.

    Attributes:
        reason: a few words that many records can share, such as `empty`.
        what: what is wrong with this one.
        where: `file:line`.
        remedy: how to mend it.
    """

    reason: str
    what: str
    where: str
    remedy: str = "fill it or take the line out"

    def as_error(self) -> BadInputError:
        """Return it as the error that it is where every record must count."""
        return BadInputError(self.what, where=self.where, remedy=self.remedy)


Record: TypeAlias = Section | Skipped


class UnusableError(Exception):
    """Raised inside readers where a record is to be skipped; never leaves them."""

    def __init__(self, reason: str, what: str, remedy: str = "fill it or take the line out") -> None:
        """Keep the parts of the `Skipped` that it becomes."""
        self.reason, self.what, self.remedy = reason, what, remedy
        super().__init__(what)

    def at(self, where: str) -> Skipped:
        """Return the record left out."""
        return Skipped(self.reason, self.what, where, self.remedy)


@dataclass(slots=True)
class Tally:
    """What became of the records of one or several files.

    Attributes:
        read: records seen.
        used: sections made of them; a record of a document can hold several.
        skipped: records left out, by reason.
        first: where the first record of each reason stands.
        kept: sections in the sample, where there were more than it takes; else None.
        cut: sections of which only the beginning is used.
        n_reasoned: replies with reasoning, of which only the words are scored.
    """

    read: int = 0
    used: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    kept: int | None = None
    cut: int = 0
    n_reasoned: int = 0

    def sections(self, records: Iterable[Record]) -> Iterator[Section]:
        """Yield the sections among `records` and count everything."""
        for record in records:
            self.read += 1
            if isinstance(record, Skipped):
                self.skipped[record.reason] += 1
                self.first.setdefault(record.reason, record.where)
                continue
            self.used += 1
            self.n_reasoned += record.n_reasoned
            yield record

    @property
    def summary(self) -> str:
        """One line: `read 1,204, used 1,180, skipped 24 (18 empty, 6 without assistant turn)`."""
        line = f"read {self.read:,}, used {self.used:,}"
        if self.skipped:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.skipped.most_common())
            line += f", skipped {self.skipped.total():,} ({reasons})"
        if self.kept is not None:
            line += f", drawn {self.kept:,} of them at random"
        line += f", cut {self.cut:,} to their beginning" if self.cut else ""
        return f"{line}; {reasoning_left(self.n_reasoned)}" if self.n_reasoned else line


def reasoning_left(n: int) -> str:
    """Return what is not scored of `n` replies, why, and what to do about it."""
    return (
        f"the reasoning of {n:,} replies is not scored, their words are: where it stands in a reply is known to the "
        "model's chat template alone; to score it, put it into `content` as the template writes it"
    )
