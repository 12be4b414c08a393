"""The pages of the project and the code that stands in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """Return every Markdown page by its path from the top."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(found)}


@pytest.fixture(scope="session")
def blocks(pages: dict[str, str]) -> Callable[[str, str], list[str]]:
    """Return the fenced blocks of a page that are in one language."""

    def of(page: str, language: str) -> list[str]:
        return [body for found, body in _FENCE.findall(pages[page]) if found == language]

    return of


@pytest.fixture(scope="session")
def code(pages: dict[str, str]) -> list[tuple[str, str]]:
    """Return (page, code) for every line of a fenced block and every code span, comments cut off."""
    found: list[tuple[str, str]] = []
    for page, text in pages.items():
        lines = [line for language, body in _FENCE.findall(text) if language != "python" for line in body.splitlines()]
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _FENCE.sub("", text))]
        found += [(page, piece.strip().removeprefix("$ ").partition("  #")[0]) for piece in (*lines, *spans)]
    return found
