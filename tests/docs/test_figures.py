"""The tables of figures are those of benchmarks/results."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

PAGES = {
    "README.md": {"speed", "truth"},
    "docs/performance.md": {"speed"},
    "docs/statistics/truth.md": {"truth", "confusion", "quick", "quick_confusion"},
}


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_what_the_results_say(root: Path, page: str) -> None:
    filled = runpy.run_path(str(root / "docs" / "figures.py"))["filled"](page)
    assert set(re.findall(r"<!-- figures: (\w+) -->", filled)) == PAGES[page]
    assert (root / page).read_text(encoding="utf-8") == filled, "run: python docs/figures.py"
