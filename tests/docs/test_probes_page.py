"""docs/probes is what the probes, their specs, tests and recorded examples say now, and each page says everything."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.cli.list_probes import described
from dlm_sway.probes.registry import probes

FIELDS = ["Asks", "Null", "Statistic", "Passes when", "Costs"]
KINDS = [kind for kind, cls in probes().items() if cls.__module__.startswith("dlm_sway.")]


@pytest.fixture(scope="module")
def making(root: Path) -> dict[str, Any]:
    """What docs/probe_pages.py defines."""
    return runpy.run_path(str(root / "docs" / "probe_pages.py"))


@pytest.fixture(scope="module")
def record(root: Path) -> dict[str, Any]:
    """What docs/examples.py recorded."""
    found: dict[str, Any] = json.loads((root / "docs/probes/examples.json").read_text(encoding="utf-8"))
    return found


def test_the_pages_are_what_the_code_says(root: Path) -> None:
    written = runpy.run_path(str(root / "docs" / "build.py"))["probe_pages"]()
    stale = [p.name for p, text in written.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python docs/build.py"
    assert {p.name for p in (root / "docs/probes").glob("*.md")} == {p.name for p in written}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_every_field_and_every_option(pages: dict[str, str], kind: str) -> None:
    page, cls = pages[f"docs/probes/{kind}.md"], probes()[kind]
    assert [name for name in FIELDS if f"- **{name}**: " not in page] == []
    assert list(described(cls)) == FIELDS
    own = set(cls.spec_type.model_fields) - {"name", "kind"}
    assert [name for name in own if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_names_a_planted_fault_and_a_healthy_pair(pages: dict[str, str], kind: str) -> None:
    tested = pages[f"docs/probes/{kind}.md"].partition("## How it is tested")[2]
    assert len(re.findall(r"^- A (?:planted fault|healthy pair)[^:]*: `test_\w+`", tested, re.MULTILINE)) == 2
    assert "](../statistics/" in tested or kind == "numeric_floor"


def test_options_have_a_type_in_words(making: dict[str, Any]) -> None:
    for kind in KINDS:
        spec = probes()[kind].spec_type
        for name, field in spec.model_fields.items():
            assert "any" not in making["_type"](spec, name, field).split(), (kind, name)
    leakage = probes()["leakage"].spec_type
    said = {name: making["_type"](leakage, name, leakage.model_fields[name]) for name in ("items", "limit", "canaries")}
    assert said == {"items": "texts", "limit": "number, over 0 and under 1", "canaries": "list of mappings"}


def test_the_example_of_a_page_is_the_record(making: dict[str, Any]) -> None:
    claim = {
        "verdict": "pass",
        "effect": 0.51234,
        "unit": "nat",
        "interval": [0.1, 0.9],
        "p": None,
        "message": "a ```b",
    }
    seen = {"entry": "- name: x\n  kind: y", "trained": {"claims": {"took": claim}, "evidence": ["rank 1 of 20"]}}
    text = "\n".join(making["_example"](seen))
    assert "| trained | `took` | pass | 0.512 nat | [0.1, 0.9] | - |" in text
    assert "```yaml\n- name: x\n  kind: y\n```" in text
    assert "trained: a '''b\n    rank 1 of 20\n```" in text
    assert "noise twin" not in text


def test_a_kind_without_a_record_says_so(making: dict[str, Any]) -> None:
    assert "No example was recorded" in "\n".join(making["_example"](None))


def test_the_record_is_of_the_suite_that_is_committed(root: Path, record: dict[str, Any]) -> None:
    entries = runpy.run_path(str(root / "docs" / "examples.py"))["entries"](root / "examples" / "every-probe.yaml")
    assert sorted(entries) == sorted(KINDS), "examples/every-probe.yaml holds every kind once"
    stale = [kind for kind, seen in record["kinds"].items() if seen["entry"] != entries.get(kind)]
    assert stale == [], "run: make examples"


def test_the_record_is_small_and_names_no_place_of_a_machine(root: Path) -> None:
    text = (root / "docs/probes/examples.json").read_text(encoding="utf-8")
    assert len(text) < 64 * 1024
    assert re.findall(r"(?:/home/|/root/|/tmp/|/work/|/Users/)", text) == []
