from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlm_sway.cli.app import run
from dlm_sway.suite.result import CheckResult

Capture = pytest.CaptureFixture[str]
StandIn = Callable[..., None]
Result = Callable[..., CheckResult]


def _demo(trained: CheckResult, twin: CheckResult) -> tuple[Callable[..., Any], list[dict[str, Any]]]:
    calls: list[dict[str, Any]] = []

    def run_demo(out: Path, **options: Any) -> SimpleNamespace:
        calls.append({"out": out, **options})
        out.mkdir(parents=True, exist_ok=True)
        folders = {"model_dir": out / "m", "adapter_dir": out / "my adapter", "twin_dir": out / "t"}
        return SimpleNamespace(trained=trained, twin=twin, **folders)

    return run_demo, calls


@pytest.mark.parametrize(
    ("trained", "twin", "code"),
    [("pass", "fail", 0), ("warn", "fail", 0), ("fail", "fail", 1), ("pass", "pass", 1), ("pass", "inconclusive", 1)],
)
def test_the_demo_holds_when_the_trained_passes_and_the_twin_fails(
    *, tmp_path: Path, stand_in: StandIn, result: Result, capsys: Capture, trained: str, twin: str, code: int
) -> None:
    run_demo, calls = _demo(result(trained), result(twin))
    stand_in("dlm_sway.demo.run", run_demo=run_demo)
    out = tmp_path / "out"
    assert run(["demo", "--out", str(out), "--seed", "5", "--quiet"]) == code
    assert (calls[0]["out"], calls[0]["seed"]) == (out, 5)
    text = capsys.readouterr().out
    assert text.splitlines()[0].split("  ")[1].startswith("trained: ")
    assert ("sway tells them apart" in text) is (code == 0)
    assert f"sway inspect '{out / 'my adapter'}'" in text


def test_the_picture_is_written_and_named_at_the_end(
    tmp_path: Path, stand_in: StandIn, result: Result, capsys: Capture
) -> None:
    stand_in("dlm_sway.demo.run", run_demo=_demo(result(), result("fail"))[0])
    assert run(["demo", "--out", str(tmp_path), "--quiet"]) == 0
    assert f"The picture: {tmp_path / 'report.html'}" in capsys.readouterr().out.splitlines()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [f'href="{name}.html"' in page for name in ("trained", "noise-twin")] == [True, True]
    assert all((tmp_path / f"{name}.html").is_file() for name in ("trained", "noise-twin"))


def test_a_twin_that_fails_something_else_is_not_told_apart(tmp_path: Path, stand_in: StandIn, result: Result) -> None:
    stand_in("dlm_sway.demo.run", run_demo=_demo(result(), result("fail", "sound"))[0])
    assert run(["demo", "--out", str(tmp_path), "--quiet"]) == 1


def test_the_json_of_the_demo_holds_both_results(tmp_path: Path, stand_in: StandIn, result: Result) -> None:
    stand_in("dlm_sway.demo.run", run_demo=_demo(result(), result("fail"))[0])
    path = tmp_path / "demo.json"
    assert run(["demo", "--out", str(tmp_path / "out"), "--json", str(path), "--quiet"]) == 0
    document = json.loads(path.read_text())
    assert list(document) == ["schema_version", "trained", "twin"]
    assert [document[name]["verdict"] for name in ("trained", "twin")] == ["pass", "fail"]


def test_the_default_place_is_a_folder_here(
    tmp_path: Path, stand_in: StandIn, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_demo, calls = _demo(result(), result("fail"))
    stand_in("dlm_sway.demo.run", run_demo=run_demo)
    assert run(["demo"]) == 0
    assert calls[0]["out"] == Path("sway-demo")


@pytest.mark.parametrize(
    ("place", "message"), [("file", "is a file, not a directory"), ("absent/out", "absent is no directory that exists")]
)
def test_a_place_that_cannot_be_is_found_before_the_download(
    *, tmp_path: Path, stand_in: StandIn, result: Result, capsys: Capture, place: str, message: str
) -> None:
    (tmp_path / "file").write_text("x")
    run_demo, calls = _demo(result(), result("fail"))
    stand_in("dlm_sway.demo.run", run_demo=run_demo)
    assert run(["demo", "--out", str(tmp_path / place)]) == 2
    assert message in capsys.readouterr().err
    assert calls == []
