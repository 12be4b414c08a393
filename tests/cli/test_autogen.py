"""`sway autogen` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm_sway.cli.app import run
from dlm_sway.suite.loader import load_spec

pytest.importorskip("datasketch")
Capture = pytest.CaptureFixture[str]


def _data(folder: Path) -> Path:
    path = folder / "d.jsonl"
    rows = [f'{{"text": "note {i} on {letter}{i * 7} alone"}}' for i, letter in enumerate("abcdefghijkl")]
    path.write_text("\n".join([*rows, '{"text": ""}']))
    return path


def test_it_writes_a_suite_and_says_what_is_in_it(tmp_path: Path, adapter: Path, capsys: Capture) -> None:
    out = tmp_path / "s.yaml"
    assert run(["autogen", str(_data(tmp_path)), "--adapter", str(adapter), "--budget", "10m", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "d.jsonl: read 13, used 12, skipped 1 (1 empty)" in said
    assert "detects 0.18 nat/token with 12 clusters" in said
    assert "left out: no requests with tools in the data" in said
    assert "cannot be tested: generalises" in said
    assert "ft: ./my-adapter" in out.read_text()
    assert "  base: b\n" in out.read_text()


def test_a_suite_in_another_folder_finds_the_base(
    tmp_path: Path, adapter: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "suites"):
        (tmp_path / name).mkdir()
    args = ["autogen", str(_data(tmp_path)), "--adapter", str(adapter), "--base", "./base", "-o", "suites/sway.yaml"]
    assert run(args) == 0
    assert "suites/sway.yaml: " in capsys.readouterr().out
    assert "  base: ../base\n  ft: ../my-adapter\n" in (tmp_path / "suites" / "sway.yaml").read_text()


def test_a_suite_in_a_folder_that_is_a_link_finds_the_adapter(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "suites").symlink_to(tmp_path / "far" / "away")
    assert run(["autogen", str(_data(tmp_path)), "--adapter", adapter.name, "-o", "suites/sway.yaml"]) == 0
    found = load_spec(tmp_path / "suites" / "sway.yaml").model.adapter
    assert found is not None
    assert found.resolve() == adapter


def test_a_file_that_is_there_is_not_written_over_unasked(tmp_path: Path, adapter: Path, capsys: Capture) -> None:
    out = tmp_path / "s.yaml"
    out.write_text("mine")
    args = ["autogen", str(_data(tmp_path)), "--adapter", str(adapter), "-o", str(out)]
    assert run(args) == 2
    assert "is there already; name another file with -o, or give --force" in " ".join(capsys.readouterr().err.split())
    assert out.read_text() == "mine"
    assert run([*args, "--force"]) == 0
    assert out.read_text().startswith("# Written by sway")


def test_a_dash_prints_the_suite_alone(tmp_path: Path, adapter: Path, capsys: Capture) -> None:
    assert run(["autogen", str(_data(tmp_path)), "--adapter", str(adapter), "-o", "-"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# Written by sway")
    assert said.rstrip().splitlines()[-1].startswith((" ", "-"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--budget", "soon", "is no time; give a number with s, m or h"),
        ("--draws", "5", "5 draws are too few"),
        ("--held-out", "0.9", "is no share that can be held out"),
        ("--held-out", "gone.txt", "gone.txt: no such file"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(
    *, tmp_path: Path, adapter: Path, capsys: Capture, option: str, value: str, message: str
) -> None:
    args = ["autogen", str(_data(tmp_path)), "--adapter", str(adapter), "-o", str(tmp_path / "s.yaml"), option, value]
    assert run(args) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "s.yaml").exists()
