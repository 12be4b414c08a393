"""The action's file, its scripts in a real shell, and what it writes and says to GitHub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dlm_sway.cli.app import app
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.integrations.github_action import COMMENT, main, marker
from dlm_sway.report.write import rendered
from dlm_sway.suite.gate import gate

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "run" in step}
Written = Callable[..., Path]


def _expressions(value: Any) -> list[str]:
    return re.findall(r"\$\{\{\s*(.+?)\s*\}\}", yaml.safe_dump(value, width=10_000))


def test_the_file_is_a_composite_action_with_the_outputs_that_are_promised() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(ACTION)
    assert list(ACTION["outputs"]) == ["score", "verdict", "report"]
    for entry in (*ACTION["inputs"].values(), *ACTION["outputs"].values()):
        assert entry["description"].strip()
    assert all(isinstance(entry["default"], str) for entry in ACTION["inputs"].values())


def test_each_step_uses_a_versioned_action_or_runs_a_script_in_bash() -> None:
    for step in STEPS:
        assert ("uses" in step) != ("run" in step), step["name"]
        assert step.get("shell") == ("bash" if "run" in step else None)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_every_expression_names_an_input_or_a_step_that_exists() -> None:
    conditions = [step["if"] for step in STEPS if "if" in step]
    said = " ".join([*_expressions(ACTION), *conditions])
    assert set(re.findall(r"inputs\.([\w-]+)", said)) == set(ACTION["inputs"])
    assert set(re.findall(r"steps\.([\w-]+)", said)) == {step["id"] for step in STEPS if "id" in step}


def test_no_expression_stands_in_a_script() -> None:
    assert len(SCRIPTS) == 5
    assert [name for name, script in SCRIPTS.items() if "${{" in script] == []


def test_every_option_of_sway_in_a_script_exists() -> None:
    group: Any = typer.main.get_command(app)
    known = {option for parameter in group.commands["gate"].params for option in parameter.opts}
    named = set(re.findall(r"(?<=[\s(])--[a-z][a-z-]+", SCRIPTS["Gate"]))
    assert {"--json", "--threshold", "--strict"} <= named <= known
    commands = {word for script in SCRIPTS.values() for word in re.findall(r"^\s*sway (\S+)", script, re.MULTILINE)}
    assert commands == {"gate"}


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Return what leaves the reports of a result as the gate does."""

    def of(result: SuiteResult, **thresholds: float) -> Path:
        folder = tmp_path / "reports"
        folder.mkdir()
        (folder / "sway.json").write_text(result.model_dump_json())
        (folder / "sway.md").write_text(rendered(result, "markdown", gate=gate(result, **thresholds)))
        return folder

    return of


def _report(folder: Path, code: int, **env: str) -> tuple[dict[str, str], str, str]:
    """Return the outputs, the summary and the comment."""
    files = {name: folder / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    given = {"SWAY_ACTION_FOLDER": str(folder), "SWAY_ACTION_EXIT": str(code), "SWAY_ACTION_SPEC": "sway.yaml"}
    assert main(["report"], {**given, **{name: str(path) for name, path in files.items()}, **env}) == 0
    outputs = re.findall(r"^(\w+)<<(\w+)\n(.*?)\n\2$", files["GITHUB_OUTPUT"].read_text(), re.MULTILINE | re.DOTALL)
    return {n: v for n, _, v in outputs}, files["GITHUB_STEP_SUMMARY"].read_text(), (folder / COMMENT).read_text()


def test_an_open_gate_gives_its_score_its_verdict_and_its_report(result: SuiteResult, written: Written) -> None:
    folder = written(result)
    outputs, summary, comment = _report(folder, 0)
    assert outputs == {"score": f"{result.score:.4f}", "verdict": "pass", "report": str(folder / "sway.md")}
    assert summary.startswith("**✅ The gate is open: score ")
    assert summary.count("gate is") == 1
    assert comment == f"{marker('sway.yaml')}\n{summary.removesuffix(chr(10))}"
    (folder / "sway.html").write_text("<html>")
    assert _report(folder, 0)[0]["report"] == str(folder / "sway.html")


def test_a_closed_gate_names_what_closed_it_at_the_thresholds_of_the_action(
    result: SuiteResult, written: Written
) -> None:
    folder = written(result, threshold=1.0, coverage_threshold=1.0)
    thresholds = {"SWAY_ACTION_THRESHOLD": "1.0", "SWAY_ACTION_COVERAGE": "1"}
    outputs, summary, _ = _report(folder, 1, **thresholds)
    assert outputs["verdict"] == "fail"
    assert summary.startswith("**❌ The gate is closed by 1 thing**: score: the score of ")
    assert summary.count("gate is") == 1
    (folder / "sway.md").unlink()  # which says it; where it could not be written, the summary says it all the same
    (folder / "github_step_summary").unlink()
    assert _report(folder, 1, **thresholds)[1].startswith("**❌ The gate is closed by 1 thing**: score: ")


def test_an_open_gate_whose_command_did_not_end_well_says_so_first(result: SuiteResult, written: Written) -> None:
    assert _report(written(result), 3)[1].startswith("**sway ended with exit code 3, though the gate is open:** ")


def test_a_gate_that_found_no_result_is_an_error_and_says_where_to_look(tmp_path: Path) -> None:
    outputs, summary, _ = _report(tmp_path, 2)
    assert outputs == {"score": "", "verdict": "error", "report": ""}
    assert "exit code 2" in summary


def test_hostile_names_write_no_markup_and_no_output_of_their_own(result: SuiteResult, written: Written) -> None:
    evil = "x\nverdict=pass\n::error::@everyone <script>![a](http://b)"
    probe = ProbeResult(name=evil, kind="delta_kl", verdict=Verdict.FAIL, score=0.0, message=evil)
    outputs, summary, comment = _report(written(result.model_copy(update={"probes": (probe,)})), 1)
    assert outputs["verdict"] == "fail"
    assert not any(bad in summary + comment for bad in ("<script>", "@everyone", "![a]", "\n::error"))
    assert "-->" not in marker("a --> b").removesuffix("-->")


GH = """#!{python}
import json, pathlib, sys
root, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (root / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[1:2] == ["user"]:
    print((root / "login").read_text()) if (root / "login").exists() else sys.exit("not a user")
elif "--paginate" in words:
    print((root / "comments").read_text())
elif (root / "refuses").exists():
    sys.exit("Resource not accessible by integration")
"""


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a gh in the way that writes down what it is asked, and return its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gh").write_text(GH.format(python=sys.executable))
    (folder / "gh").chmod(0o755)
    (folder / "comments").write_text("")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def _comment(folder: Path, gh: Path) -> list[str]:
    """Return the last thing that gh was asked."""
    env = {"SWAY_ACTION_FOLDER": str(folder), "GITHUB_REPOSITORY": "o/r", "SWAY_ACTION_PR": "7"}
    assert main(["comment"], env) == 0
    found: list[str] = json.loads((gh / "calls").read_text().splitlines()[-1])
    return found


def _said(gh: Path, *comments: tuple[int, str, str, str]) -> None:
    keys = ("id", "login", "type", "first")
    (gh / "comments").write_text("\n".join(json.dumps(dict(zip(keys, c, strict=True))) for c in comments))


def test_the_first_comment_is_made_and_the_next_edits_it(result: SuiteResult, written: Written, gh: Path) -> None:
    folder = written(result)
    _report(folder, 0)
    made = _comment(folder, gh)
    assert made == ["api", "--method", "POST", "repos/o/r/issues/7/comments", "--field", f"body=@{folder / COMMENT}"]
    bot, mine = "github-actions[bot]", marker("sway.yaml")
    _said(gh, (1, bot, "Bot", marker("other.yaml")), (2, "eve", "User", mine), (3, bot, "Bot", f"{mine}\r"))
    assert _comment(folder, gh)[2:4] == ["PATCH", "repos/o/r/issues/comments/3"]


def test_a_persons_token_edits_that_persons_comment(result: SuiteResult, written: Written, gh: Path) -> None:
    folder = written(result)
    _report(folder, 0)
    (gh / "login").write_text("ann")
    _said(gh, (2, "eve", "Bot", marker("sway.yaml")), (4, "ann", "User", marker("sway.yaml")))
    assert _comment(folder, gh)[2:4] == ["PATCH", "repos/o/r/issues/comments/4"]


def test_a_token_that_may_not_comment_warns_and_fails_nothing(
    result: SuiteResult, written: Written, gh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(result)
    _report(folder, 0)
    (gh / "refuses").touch()
    _comment(folder, gh)
    assert capsys.readouterr().out.startswith("::warning title=sway::no comment: Resource not accessible")


def test_a_step_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rapport"], {}) == 2
    assert "no step 'rapport'" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_scripts_judge_a_result_from_the_gate_to_the_exit_code(tmp_path: Path, noise_result: SuiteResult) -> None:
    spec = tmp_path / "-a $(touch pwned) `touch pwned`;touch pwned.json"
    spec.write_text(noise_result.model_dump_json())
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        **dict.fromkeys(("COVERAGE", "STRICT", "FAST"), ""),
    }

    def step(name: str, **words: str) -> subprocess.CompletedProcess[str]:
        strict = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", SCRIPTS[name]]
        return subprocess.run(
            strict, env={**env, **words}, cwd=tmp_path, text=True, capture_output=True, check=False, timeout=120
        )

    gated = step("Gate", SPEC=spec.name, THRESHOLD="0.5", REUSE="true")
    assert gated.returncode == 0, gated.stderr
    assert re.match(r"::stop-commands::(\w{32})\n(?s:.+)\n::\1::\n$", gated.stdout)
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert outputs["code"] == "1"
    names = {"SWAY_ACTION_FOLDER": outputs["folder"], "SWAY_ACTION_EXIT": outputs["code"], "SWAY_ACTION_SPEC": "s"}
    reported = step("Report", **names)
    assert reported.returncode == 0, reported.stderr
    assert "- learned: " in (tmp_path / "summary").read_text()
    assert {path.name for path in Path(outputs["folder"]).iterdir()} == {
        "sway.json", "sway.md", "sway.html", "sway.xml", COMMENT,
    }  # fmt: skip
    assert step("Verdict", CODE=outputs["code"]).returncode == 1
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("word", ["yes", "True", "1", " true"])
@pytest.mark.parametrize("name", ["STRICT", "FAST"])
def test_a_switch_that_is_neither_true_nor_false_is_refused(tmp_path: Path, name: str, word: str) -> None:
    env = {"PATH": os.environ["PATH"], "SPEC": "none.json", "STRICT": "false", "FAST": "false", name: word}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", SCRIPTS["Gate"]],
        env=env,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (
        2,
        "::error title=sway::the inputs strict and fast take true or false alone\n",
    )
