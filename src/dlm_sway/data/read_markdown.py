"""Markdown: a section for each heading (`#` to `######`), with the text under it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.files import Line, lines
from dlm_sway.data.paragraphs import CodeFence, joined
from dlm_sway.data.reading import Record, Skipped
from dlm_sway.data.registry import Reader, register

_HEADING: Final = re.compile(r" {0,3}#{1,6}(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")


@register("markdown")
class MarkdownReader(Reader):
    """Reads UTF-8 Markdown; headings inside triple backticks head nothing, and front matter is left out."""

    suffixes: ClassVar[tuple[str, ...]] = (".md", ".markdown", ".mdown")

    def read(self, name: str) -> Iterator[Record]:
        """Yield the text under each heading as prose, titled by it."""
        path = Path(name)
        end = _front_matter_end(path)
        if end > 1:
            yield Skipped("front matter", "front matter is no text to learn", f"{name}:1")
        yield from prose_sections(islice(lines(path), end, None), name)


def prose_sections(numbered: Iterator[Line], source: str, *, part_of: str = "") -> Iterator[Record]:
    """Yield the text under each heading, and before the first one, as prose."""
    fence, title, title_at = CodeFence(), "", 0
    body: list[Line] = []
    for number, text in numbered:
        heading = None if fence.inside(number, text) else _HEADING.match(text)
        if heading is None:
            body.append((number, text))
            continue
        yield from _section(body, title, title_at, source, part_of)
        title, title_at, body = (heading[1] or "").strip(), number, []
    yield from _section(body, title, title_at, source, part_of)


def _section(body: list[Line], title: str, title_at: int, source: str, part_of: str) -> Iterator[Record]:
    filled = [i for i, (_, text) in enumerate(body) if text.strip()]
    if filled:
        trimmed = body[filled[0] : filled[-1] + 1]
        line, text = trimmed[0][0], joined(trimmed)
        yield Section("prose", "", text, source, line, title=title, part_of=part_of, by_paragraph=True)
    elif title_at:
        yield Skipped("headings without text", f"nothing stands under `{title[:60]}`", f"{source}:{title_at}")


def _front_matter_end(path: Path) -> int:
    """Return how many lines to pass over at the top: front matter, a rule (which is no text), or none.

    As in Pandoc, a rule that a blank line follows opens no front matter: what stands under it is text.

    Raises:
        BadInputError: front matter is never closed, and would be the whole file.
    """
    numbered = lines(path)
    first, second = next(numbered, (0, "")), next(numbered, (0, ""))
    if first[1].rstrip() != "---":
        return 0
    if not second[1].strip():
        return 1
    for number, text in chain((second,), numbered):
        if text.rstrip() in ("---", "..."):
            return number
    remedy = "close it with `---`; where it is a rule, put a blank line under it"
    raise BadInputError("front matter is never closed", where=f"{path}:1", remedy=remedy)
