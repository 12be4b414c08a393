"""docs/examples.py: the suite of every probe, run on a fake, and what is kept of it."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.suite.run import run

TEXTS = "examples/tidal-bell.txt"


@pytest.fixture(scope="module")
def script(root: Path) -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(root / "docs" / "examples.py"))


def test_the_suite_runs_on_another_model_and_leaves_the_committed_file_alone(
    root: Path, script: dict[str, Any], tmp_path: Path
) -> None:
    suite = script["prepare"](tmp_path / "examples")
    text = script["on_models"](suite, base="org/base", adapter=tmp_path / 'ad"apter').read_text(encoding="utf-8")
    assert '\n  base: "org/base"\n' in text
    assert json.dumps(str(tmp_path / 'ad"apter')) in text
    assert "../out/demo/trained" in (root / "examples" / "every-probe.yaml").read_text(encoding="utf-8")


def test_probes_that_read_files_find_what_the_script_put_there(script: dict[str, Any], tmp_path: Path) -> None:
    found = _on_dummy(script, tmp_path, only=("optimizer", "training"))
    assert found["gradient_ghost"]["claims"]["updated"]["message"] == "all 2 tensors were updated"
    assert {found["training_drift"]["verdict"], found["gradient_ghost"]["verdict"]} == {"pass"}


def test_what_is_kept_of_a_probe_is_claims_and_a_line_or_two(script: dict[str, Any], tmp_path: Path) -> None:
    found = _on_dummy(script, tmp_path, only=("on-target", "sections"), strength=2.0)
    target = found["target_gain"]
    assert list(target["claims"]) == ["on_target", "generalises"]
    assert target["claims"]["on_target"]["verdict"] == "pass"
    assert target["evidence"][0].startswith("rank 1 of 20 among its nulls")
    assert "The way of the water" in json.dumps(found["section_internalization"])


def test_figures_are_short_and_finite(script: dict[str, Any]) -> None:
    result = ProbeResult(
        name="x",
        kind="y",
        verdict=Verdict.PASS,
        evidence={
            "claims": {"a": {"verdict": "pass", "effect": 1 / 3, "interval": [0.0, math.inf], "message": "m"}},
            "items": {"largest": [{"label": "one", "value": 2 / 3, "text": "words " * 40}]},
        },
    )
    kept = script["record"](result.model_dump())
    assert (kept["claims"]["a"]["effect"], kept["claims"]["a"]["interval"]) == (0.3333, [0.0, None])
    assert kept["evidence"][0].startswith("largest: 0.6667 (one) words words")
    assert len(kept["evidence"][0]) <= 110


def _on_dummy(script: dict[str, Any], folder: Path, *, only: tuple[str, ...], strength: float = 1.0) -> dict[str, Any]:
    suite: Path = script["prepare"](folder / "examples")
    towards = (folder / TEXTS).read_text(encoding="utf-8").splitlines()
    options = {"adapter": "trained", "towards": towards, "strength": strength}
    models = f"models:\n  base: {{base: dummy, kind: dummy, options: {json.dumps(options)}}}\n  ft: {{}}\n"
    head, _, rest = suite.read_text(encoding="utf-8").partition("models:\n")
    suite.write_text(head + models + "\n" + rest.partition("\n\n")[2], encoding="utf-8")
    result = run(suite, only=only).model_dump(mode="json")
    return {probe["kind"]: script["record"](probe) for probe in result["probes"]}
