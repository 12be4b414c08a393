"""`sway compare` and `sway diff` from the words of a command to their end; the suite itself is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.cli.app import run
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.json import dumps

Capture = pytest.CaptureFixture[str]


def _result(verdict: str = "pass", ends: tuple[float, float] | None = (0.4, 0.6), adapter: str = "a") -> SuiteResult:
    found = ProbeResult(
        name="a", kind="delta_kl", verdict=Verdict(verdict), raw=0.5, ci_95=ends, evidence={"unit": "nat/token"}
    )
    return SuiteResult(name="s", base="b", adapter=adapter, probes=(found,))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a result and gives its path."""

    def write(name: str, *args: Any) -> str:
        path = tmp_path / name
        path.write_text(dumps(_result(*args).model_dump(mode="json")))
        return str(path)

    return write


def test_without_a_regression_it_ends_with_0_either_way(written: Callable[..., str]) -> None:
    pair = [written("a.json"), written("b.json")]
    assert run(["compare", *pair]) == 0
    assert run(["compare", *pair, "--fail-on-regression"]) == 0


def test_a_regression_ends_with_1_on_demand(written: Callable[..., str], capsys: Capture) -> None:
    pair = [written("a.json"), written("b.json", "fail")]
    assert run(["compare", *pair]) == 0
    assert run(["compare", *pair, "--fail-on-regression"]) == 1
    assert capsys.readouterr().out.startswith("✗ FAIL  1 regression against a")


def test_nothing_comparable_ends_with_4_on_demand(written: Callable[..., str]) -> None:
    pair = [written("a.json", "pass", None), written("b.json", "pass", None)]
    assert run(["compare", *pair, "--fail-on-regression"]) == 4


def test_it_writes_json_and_markdown(written: Callable[..., str], tmp_path: Path) -> None:
    places = [tmp_path / "c.json", tmp_path / "c.md"]
    words = ["--json", str(places[0]), "--markdown", str(places[1])]
    assert run(["compare", written("a.json"), written("b.json"), *words]) == 0
    assert json.loads(places[0].read_text())["reference"] == "a"
    assert places[1].read_text().startswith("## sway compare: PASS")


def test_one_result_or_a_file_that_is_none_is_bad_input(written: Callable[..., str], capsys: Capture) -> None:
    assert run(["compare", written("a.json")]) == 2
    assert "nothing to compare with" in capsys.readouterr().err
    assert run(["compare", written("a.json"), "missing.json"]) == 2
    assert "missing.json" in capsys.readouterr().err


SUITE = """\
version: 1
models: {base: {kind: dummy, base: tiny}, ft: {}}
suite: [{name: a, kind: delta_kl}]
"""


@pytest.fixture
def calls(stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a run in the place of the real one, which fails for an adapter called `bad`; return the calls it gets."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "sway.yaml").write_text(SUITE)
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    made: list[dict[str, Any]] = []

    def suite_run(suite: Any, **settings: Any) -> SuiteResult:
        made.append({"suite": suite, **settings})
        return _result("fail" if suite.adapter.endswith("bad") else "pass", (0.4, 0.6), suite.adapter)

    stand_in("dlm_sway.suite.run", run=suite_run)
    return made


def _diff(tmp_path: Path, a: str, b: str, *words: str) -> int:
    folders = ["--a", str(tmp_path / a), "--b", str(tmp_path / b)]
    return run(["diff", str(tmp_path / "sway.yaml"), *folders, "--quiet", *words])


def test_diff_runs_the_suite_on_both_with_what_is_in_the_cache(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    assert _diff(tmp_path, "good", "bad", "--draws", "19") == 0
    assert [call["suite"].model.adapter for call in calls] == [tmp_path / "good", tmp_path / "bad"]
    assert all(call["reuse"] and call["n_draws"] == 19 for call in calls)


@pytest.mark.usefixtures("calls")
def test_diff_fails_on_a_regression_on_demand(tmp_path: Path, capsys: Capture) -> None:
    assert _diff(tmp_path, "good", "bad", "--fail-on-regression") == 1
    assert "bad, a" in capsys.readouterr().out
    assert _diff(tmp_path, "bad", "good", "--fail-on-regression") == 0


def test_diff_refuses_a_directory_that_is_not_there_before_any_run(
    calls: list[dict[str, Any]], tmp_path: Path, capsys: Capture
) -> None:
    assert _diff(tmp_path, "good", "gone") == 2
    assert "is no directory" in capsys.readouterr().err
    assert calls == []
