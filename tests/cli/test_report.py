from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.report.samples import FOLDER

from dlm_sway.cli.app import run
from dlm_sway.core.errors import BadInputError
from dlm_sway.report.write import FORMATS, write_report

Capture = pytest.CaptureFixture[str]
Calls = list[dict[str, Any]]
SUITE, CHECK = (str(FOLDER / f"{kind}-v1.json") for kind in ("suite", "check"))
STARTS = {"json": "{", "markdown": "## ", "html": "<!doctype html>", "junit": "<?xml"}


@pytest.mark.parametrize("file", [SUITE, CHECK])
def test_a_stored_result_is_shown_again_whatever_its_verdict(file: str, capsys: Capture) -> None:
    assert run(["report", file]) == 0
    assert "tidal-bell" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_goes_to_stdout_or_to_a_file(form: str, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "report"
    assert run(["report", SUITE, "--format", form]) == 0
    shown = capsys.readouterr().out
    assert run(["report", SUITE, "--format", form, "-o", str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert out.read_text(encoding="utf-8") == shown
    assert shown.startswith(STARTS[form])


@pytest.mark.parametrize(
    ("name", "start"), [("a.json", "{"), ("a.md", "## "), ("a.HTML", "<!doctype"), ("a.xml", "<?xml"), ("a.txt", "‼")]
)
def test_the_ending_of_the_file_chooses_the_format(name: str, start: str, tmp_path: Path) -> None:
    assert run(["report", SUITE, "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_a_file_is_as_wide_from_every_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for columns in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert run(["report", SUITE, "-o", str(tmp_path / columns)]) == 0
        texts.append((tmp_path / columns).read_text(encoding="utf-8"))
    assert len(set(texts)) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no.json"], "cannot be read"),
        ([SUITE, "-o", "report.doc"], "--format"),
        ([SUITE, "-o", "no/such/folder/a.md"], "no directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(args: list[str], said: str, capsys: Capture) -> None:
    assert run(["report", *args]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_check_writes_every_report_that_was_asked_for(adapter: Path, tmp_path: Path, checked: Calls) -> None:
    paths = {form: tmp_path / form for form in FORMATS}
    args = [part for form, path in paths.items() for part in (f"--{form}", str(path))]
    assert run(["check", str(adapter), *args]) == 0
    assert checked
    for form, path in paths.items():
        assert path.read_text(encoding="utf-8").startswith(STARTS[form])
    assert json.loads(paths["json"].read_text())["verdict"] == "pass"
    assert ET.parse(paths["junit"]).getroot().tag == "testsuites"  # noqa: S314 (our own output)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    adapter: Path, tmp_path: Path, checked: Calls
) -> None:
    assert run(["check", str(adapter), "--html", str(tmp_path / "no" / "a.html")]) == 2
    assert checked == []


def test_one_file_that_fails_costs_neither_the_others_nor_the_report(
    adapter: Path, tmp_path: Path, checked: Calls, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from dlm_sway.cli import deliver

    write: Callable[..., None] = deliver.write_atomic

    def refuse(path: Path, text: str) -> None:
        if path.name == "a.json":
            raise BadInputError("no", where=path)
        write(path, text)

    monkeypatch.setattr(deliver, "write_atomic", refuse)
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    assert run(["check", str(adapter), *files]) == 2
    assert (tmp_path / "a.md").exists()
    assert "PASS" in capsys.readouterr().out
    assert checked


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    from tests.report.samples import stored

    with pytest.raises(BadInputError, match="choose one of"):
        write_report(stored("check"), tmp_path / "x", "pdf")  # type: ignore[arg-type]
