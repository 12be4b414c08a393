"""Users' data: from any source that a reader knows to sections, and from sections to what is scored.

Readers are found by a source's name (`data/registry.py`): text, Markdown, JSONL, JSON, Parquet, `.dlm` documents and
data sets. Lines of one `cluster` (a document, a template, a set of paraphrases) vary together and are counted as one in
every interval.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section, place
from dlm_sway.data.conversations import as_prompt, as_text, replies
from dlm_sway.data.files import file_hash
from dlm_sway.data.paragraphs import joined, numbered, paragraphs
from dlm_sway.data.reading import Record, Skipped, Tally, reasoning_left
from dlm_sway.data.registry import reader_for

__all__ = ["DataItem", "every_section", "file_hash", "items_of", "read_items", "read_records", "read_sections"]

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataItem:
    """One thing to score.

    Attributes:
        prompt: what the completion is conditioned on; empty for plain text.
        completion: the text that is scored; never blank.
        source: the file as the user named it.
        line: 1-based line where the item starts.
        cluster: items of one cluster are kept together in every interval; each item is its own by default.
        nth: as in `Section`, of a record that shares its line with others.
    """

    prompt: str
    completion: str
    source: str
    line: int
    cluster: str
    nth: int = 0

    @property
    def label(self) -> str:
        """Its place without the folders, as results name it."""
        return place(Path(self.source).name, self.line, self.nth)

    @property
    def words(self) -> tuple[str, str]:
        """What is given and what is scored: equal for equal items, wherever they stand."""
        return self.prompt, self.completion


def read_records(source: Path | str) -> Iterator[Record]:
    """Yield the records of a source in its order: sections, and what is left out with the reason.

    Raises:
        BadInputError: there is no such source, it holds nothing, or a record is malformed; `where` is `file` or
            `file:line`.
        MissingExtraError: a package that reads the format is not installed.
    """
    empty = True
    for record in reader_for(str(source)).read(str(source)):
        empty = False
        yield record
    if empty:
        raise BadInputError("holds no text", where=source, remedy="put a paragraph or a JSON object on each line")


def read_sections(source: Path | str, tally: Tally | None = None) -> Iterator[Section]:
    """Yield the sections of a source and count what is left out in `tally`.

    Raises:
        BadInputError: as `read_records`, or nothing in it can be used.
    """
    tally = Tally() if tally is None else tally
    before = tally.used
    yield from tally.sections(read_records(source))
    if tally.used == before:
        what = f"holds nothing that can be used: {tally.summary}"
        raise BadInputError(what, where=next(iter(tally.first.values()), source), remedy="mend or replace the file")


def read_items(source: Path | str) -> tuple[DataItem, ...]:
    """Return what is scored of a source, in its order; at least one, and every record counts.

    Raises:
        BadInputError: as `read_records`, or a record is of no use, such as an empty line of JSONL.
    """
    return tuple(item for section in every_section(source) for item in items_of(section))


def every_section(source: Path | str) -> tuple[Section, ...]:
    """Return the sections of a source, in its order; at least one, and every record counts.

    Raises:
        BadInputError: as `read_items`.
    """
    found = tuple(_every(read_records(source)))
    if n := sum(section.n_reasoned for section in found):
        _warn(str(source), reasoning_left(n))
    if not found:
        raise BadInputError("holds headings and front matter, and no text", where=source, remedy="put text under them")
    return found


def items_of(section: Section) -> tuple[DataItem, ...]:
    """Return what is scored of a section: paragraphs of prose, replies of a conversation, else its one answer.

    A preference gives the chosen reply. Replies of one conversation are a cluster.
    """
    if section.by_paragraph:
        blocks = paragraphs(numbered(section.completion, section.line), code=True)
        return tuple(_item(section, "", joined(block), block[0][0]) for block in blocks)
    if section.messages:
        return tuple(_replies(section))
    return (_item(section, section.prompt, section.completion, section.line),)


def _every(records: Iterable[Record]) -> Iterator[Section]:
    for record in records:
        if isinstance(record, Skipped):
            if record.reason in _NO_LOSS:
                continue
            raise record.as_error()
        yield record


@cache  # a suite reads a file once for each probe
def _warn(source: str, what: str) -> None:
    _LOGGER.warning("%s: %s", source, what)


# Marks of a document that never held text to learn.
_NO_LOSS = frozenset({"front matter", "headings without text"})


def _replies(section: Section) -> Iterator[DataItem]:
    at = replies(section.messages)
    for i in at:
        text = as_text(section.messages[i])
        if text.strip():
            yield _item(section, as_prompt(section.messages[:i]), text, section.line)


def _item(section: Section, prompt: str, completion: str, line: int) -> DataItem:
    cluster = section.cluster if section.cluster is not None else place(section.source, line, section.nth)
    return DataItem(prompt, completion, section.source, line, cluster, section.nth)
