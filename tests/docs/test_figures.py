"""The tables of figures are those of benchmarks/results."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

PAGES = ("README.md", "docs/performance.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_what_the_results_say(root: Path, page: str) -> None:
    filled = runpy.run_path(str(root / "docs" / "figures.py"))["filled"](page)
    assert "<!-- figures: speed -->" in filled
    assert (root / page).read_text(encoding="utf-8") == filled, "run: python docs/figures.py"
