"""The user's data as one sample of sections, drawn from one or several sources in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.readers import file_hash, read_records
from dlm_sway.data.reading import Record, Skipped, Tally
from dlm_sway.data.reservoir import reservoir

MOST: Final = 4096  # sections of a sample: several times what the largest probe reads
LONGEST: Final = 16_384  # characters of a section: some 4,000 tokens, beyond which no probe reads
_WEIGHTED: Final = re.compile(r"(.+)=(\d+(?:\.\d+)?)$")


@dataclass(frozen=True, slots=True)
class Source:
    """A file, folder or data set, and its weight beside the others.

    Attributes:
        name: as the user named it.
        weight: its share of the sample, relative to the other sources'.
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Material:
    """What was read.

    Attributes:
        sections: the sample, by source and place.
        sources: where it is from.
        tallies: what became of the records of each source.
        sha256: hash of each source that is a file, by name.
    """

    sections: tuple[Section, ...]
    sources: tuple[Source, ...]
    tallies: tuple[Tally, ...]
    sha256: tuple[str | None, ...]

    @property
    def is_sample(self) -> bool:
        """Whether there is more than was kept."""
        return any(tally.kept is not None for tally in self.tallies)

    @property
    def summaries(self) -> tuple[str, ...]:
        """One line a source: what was read, used and skipped."""
        return tuple(f"{s.name}: {t.summary}" for s, t in zip(self.sources, self.tallies, strict=True))


def parse_source(text: str) -> Source:
    """Return the source that `NAME` or `NAME=WEIGHT` means; a file of that whole name comes first.

    Raises:
        BadInputError: the weight is 0.
    """
    match = _WEIGHTED.match(text)
    if match is None or Path(text).exists():
        return Source(text)
    if float(match[2]) <= 0:
        raise BadInputError("a weight of 0 leaves the source out", where=text, remedy="give a positive weight")
    return Source(match[1], float(match[2]))


def read_material(sources: Sequence[Source], *, limit: int = MOST, seed: int = 0) -> Material:
    """Return at most about `limit` sections of the sources, each source's share by its weight.

    Raises:
        BadInputError: a source cannot be read, or holds nothing that can be used.
    """
    total = sum(source.weight for source in sources)
    sections: list[Section] = []
    tallies: list[Tally] = []
    for source in sources:
        tally = Tally()
        share = max(1, round(limit * source.weight / total))
        found = _bounded(read_records(source.name), tally)
        kept, n = reservoir(found, share, rng=stream(seed, "sample", Path(source.name).name))
        tally.kept = len(kept) if n > len(kept) else None
        if not kept:
            what = f"holds nothing that can be used: {tally.summary}"
            raise BadInputError(what, where=next(iter(tally.first.values()), source.name), remedy="mend the file")
        sections += kept
        tallies.append(tally)
    hashes = tuple(file_hash(Path(s.name)) if Path(s.name).is_file() else None for s in sources)
    return Material(tuple(sections), tuple(sources), tuple(tallies), hashes)


def _bounded(records: Iterator[Record], tally: Tally) -> Iterator[Section]:
    """Yield sections of bounded size: long prose is cut, and counted; what cannot be cut is left out, and counted."""
    yield from tally.sections(_bound(record, tally) for record in records)


def _bound(record: Record, tally: Tally) -> Record:
    if isinstance(record, Skipped) or _size(record) <= LONGEST:
        return record
    if record.kind == "prose" and not record.prompt:
        tally.cut += 1
        end = record.completion.rfind(" ", LONGEST // 2, LONGEST)
        return replace(record, completion=record.completion[: end if end > 0 else LONGEST])
    what = f"is longer than {LONGEST:,} characters"
    return Skipped(f"longer than {LONGEST:,} characters", what, record.where, "split it")


def _size(section: Section) -> int:
    size = len(section.prompt) + len(section.completion) + len(section.rejected)
    return size + sum(len(str(m.get("content", ""))) for m in section.messages) if section.messages else size
