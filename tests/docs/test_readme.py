"""The README shows what sway prints, writes and offers now."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

import dlm_sway
from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.adapters.inspection import Inspection
from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import Question, Verdict
from dlm_sway.report.terminal import print_check
from dlm_sway.suite.result import QUESTIONS, CheckResult

Blocks = Callable[[str, str], list[str]]
README = "README.md"


def test_the_report_in_the_readme_is_what_sway_prints_for_the_json_below_it(blocks: Blocks) -> None:
    (document,) = blocks(README, "json")
    out = io.StringIO()
    console = Console(file=out, width=100, markup=False, emoji=False, highlight=False)
    print_check(CheckResult.model_validate_json(document), console)
    (shown,) = blocks(README, "text")
    assert shown == out.getvalue(), f"put this in README.md:\n{out.getvalue()}"


def test_the_json_in_the_readme_has_the_shape_that_is_written(blocks: Blocks) -> None:
    (text,) = blocks(README, "json")
    document = json.loads(text)
    assert set(CheckResult.model_fields) - set(document) == {"probes", "provenance", "timing"}
    assert list(document["questions"]) == list(QUESTIONS)
    assert all(set(answer) == set(Question.model_fields) for answer in document["questions"].values())


def test_the_readme_explains_every_exit_code_and_every_verdict(pages: dict[str, str]) -> None:
    table = pages[README].partition("**Exit codes**")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == {int(code) for code in ExitCode}
    assert [v for v in Verdict if f"\n- `{v}`:" not in pages[README]] == []


def test_the_python_in_the_readme_fits_the_signatures(root: Path, blocks: Blocks) -> None:
    (snippet,) = blocks(README, "python")
    nodes = list(ast.walk(ast.parse(snippet)))
    names = {(n.value.id, n.attr) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    assert {attr for owner, attr in names if owner == "sway"} <= set(dlm_sway.__all__)
    assert all(hasattr(CheckResult, a) or a in CheckResult.model_fields for o, a in names if o == "result")
    assert all(hasattr(Inspection, a) or a in Inspection.model_fields for o, a in names if o == "inspection")
    for call in (n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
        keywords = {k.arg for k in call.keywords}
        if call.func.attr == "check":
            assert keywords <= _arguments(root / "src/dlm_sway/suite/check.py", "check")
        elif call.func.attr == "inspect_adapter":
            assert keywords <= set(inspect.signature(inspect_adapter).parameters)


def _arguments(path: Path, function: str) -> set[str]:
    """Return a function's arguments from its source, since importing it would load torch."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    return {a.arg for a in (*found.args.args, *found.args.kwonlyargs)}
