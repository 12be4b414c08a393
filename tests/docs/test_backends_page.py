from __future__ import annotations

import importlib.util
from pathlib import Path


def test_the_table_of_backends_is_what_the_code_says(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("build_pages", root / "docs" / "build.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018 (one fact)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    text = (root / "docs" / "backends.md").read_text(encoding="utf-8")
    assert build.with_table(text) == text
    assert "| `api` | with a LoRA on llama.cpp | no |" in text
