"""Writes docs/schema/*.json, the JSON Schemas of results: `python docs/schemas.py`. Needs no torch."""  # noqa: INP001 (a script, no package)

from __future__ import annotations

from pathlib import Path
from typing import Final

from dlm_sway.report.json import dumps
from dlm_sway.report.schema import result_schemas

FOLDER: Final = Path(__file__).with_name("schema")


def schemas() -> dict[Path, str]:
    """Return each file and what it should hold now."""
    return {FOLDER / f"{kind}-result.json": dumps(schema) for kind, schema in result_schemas().items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in schemas().items():
        path.write_text(text, encoding="utf-8")
