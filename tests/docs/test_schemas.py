from __future__ import annotations

import runpy
from pathlib import Path


def test_the_committed_schemas_are_what_the_code_would_write(root: Path) -> None:
    files = runpy.run_path(str(root / "docs" / "schemas.py"))["schemas"]()
    assert files
    stale = [p.name for p, text in files.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python docs/schemas.py"
