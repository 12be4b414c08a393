"""docs/probes.md is what the probes' docstrings say now, and each of them says everything."""

from __future__ import annotations

import runpy
from pathlib import Path

from dlm_sway.cli.list_probes import described
from dlm_sway.probes.registry import probes

FIELDS = ["Asks", "Null", "Statistic", "Passes when", "Costs"]


def test_the_page_is_what_the_docstrings_say(root: Path, pages: dict[str, str]) -> None:
    written = runpy.run_path(str(root / "docs" / "build.py"))["page"]()
    assert pages["docs/probes.md"] == written, "run: python docs/build.py"


def test_every_probe_has_a_section_with_every_field(pages: dict[str, str]) -> None:
    for kind, cls in probes().items():
        if cls.__module__.startswith("dlm_sway."):
            section = pages["docs/probes.md"].partition(f"\n## `{kind}`\n")[2].partition("\n## ")[0]
            assert [name for name in FIELDS if f"- **{name}**: " not in section] == []
            assert list(described(cls)) == FIELDS


def test_every_option_of_a_probe_is_explained(pages: dict[str, str]) -> None:
    for kind, cls in probes().items():
        section = pages["docs/probes.md"].partition(f"\n## `{kind}`\n")[2].partition("\n## ")[0]
        own = set(cls.spec_type.model_fields) - {"name", "kind"}
        assert [name for name in own if section and f"| `{name}` |" not in section] == []
