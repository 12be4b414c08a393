"""Printing without trailing blanks, so that a report in a log or a diff is as clean as on a terminal."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments


def print_trimmed(renderable: RenderableType, console: Console, *, indent: int = 0) -> None:
    """Print `renderable` in what width is left beside `indent`, each line without the blanks that pad it."""
    options = console.options.update_width(max(console.width - indent, 1))
    out: list[Segment] = []
    for line in console.render_lines(renderable, options, pad=False):
        segments = _trimmed(line)
        out += [Segment(" " * indent), *segments, Segment.line()] if segments else [Segment.line()]
    console.print(Segments(out), soft_wrap=True, end="")


def _trimmed(line: list[Segment]) -> list[Segment]:
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style, kept[-1].control)
    return kept
