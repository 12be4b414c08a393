"""What a command reads is never what it writes, and no two of its reports stand on one path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.cli.app import run
from dlm_sway.cli.outputs import STDOUT, first_file, places
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict

Capture = pytest.CaptureFixture[str]
Calls = list[dict[str, Any]]
_SUITE = """\
version: 1
models: {base: {kind: dummy, base: tiny}, ft: {}}
data: {d: data.txt}
suite:
  - {name: a, kind: delta_kl}
"""


@pytest.fixture
def here(tmp_path: Path, adapter: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in: an adapter, data, a suite, a result, and a folder of data."""
    assert (adapter.parent, data.parent) == (tmp_path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "sway.yaml").write_text(_SUITE)
    probe = ProbeResult(name="a", kind="delta_kl", verdict=Verdict.PASS)
    (tmp_path / "r.json").write_text(SuiteResult(name="s", base="b", probes=(probe,)).model_dump_json())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "config.json").write_text("{}")
    (tmp_path / "link.txt").symlink_to("data.txt")
    return tmp_path


def _holds(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        "check my-adapter --data data.txt --json data.txt",
        "check my-adapter --data data.txt --html ./set/../data.txt",
        "check my-adapter --data data.txt --json link.txt",
        "check my-adapter --data link.txt --trace data.txt",
        "check my-adapter --json my-adapter/adapter_config.json",
        "check my-adapter --json my-adapter/new.json",
        "check my-adapter --base merged --json merged/config.json",
        "check my-adapter --json x.json --markdown ./x.json",
        "check my-adapter --json x.json --trace x.json",
        "run sway.yaml --json sway.yaml",
        "run sway.yaml --json data.txt",
        "run sway.yaml --json x --markdown x",
        "run sway.yaml --json x --trace x",
        "gate sway.yaml --junit sway.yaml",
        "gate r.json --json r.json",
        "diff sway.yaml --a my-adapter --b merged --json my-adapter/x.json",
        "diff sway.yaml --a my-adapter --b merged --markdown sway.yaml",
        "compare r.json r.json --json r.json",
        "compare r.json r.json --json x --markdown x",
        "report r.json -o r.json",
        "inspect my-adapter --json my-adapter/adapter_config.json",
        "autogen data.txt -o data.txt --force",
        "autogen set -o set/train.jsonl --force",
        "autogen data.txt --held-out link.txt -o link.txt --force",
        "mine my-adapter --data data.txt --mode paraphrase -o data.txt",
        "chain my-adapter --merged merged --json merged/config.json",
        "chain my-adapter --merged merged --data data.txt --json data.txt",
        "init data.txt --adapter my-adapter --data data.txt --force",
        "init sway.schema.json --adapter my-adapter --force",
    ],
)
def test_an_output_that_is_an_input_or_another_output_is_refused_and_nothing_is_lost(
    here: Path, checked: Calls, capsys: Capture, words: str
) -> None:
    before = _holds(here)
    assert run([*words.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert _holds(here) == before
    assert checked == []


@pytest.mark.usefixtures("checked")
def test_outputs_that_cost_nothing_are_taken(here: Path) -> None:
    words = ["check", "my-adapter", "--base", "merged", "--data", "data.txt"]
    assert run([*words, "--json", "x.json", "--markdown", "merged/x.md", "--quiet"]) == 0
    assert json.loads((here / "x.json").read_text())["verdict"] == "pass"
    if Path("/dev/null").exists():
        assert run([*words, "--json", "/dev/null", "--markdown", "/dev/null", "--quiet"]) == 0


def test_a_suite_may_stand_in_a_folder_of_data(here: Path) -> None:
    (here / "set" / "sway.yaml").write_text("old")
    with pytest.raises(BadInputError, match="is a file of"):
        places(reads=["set"], out=here / "set" / "sway.yaml")
    from dlm_sway.cli.autogen import _free

    assert _free(Path("set/sway.yaml"), ["set"], None, force=True) == Path("set/sway.yaml")


def test_an_input_that_is_no_path_here_is_no_harm(here: Path) -> None:
    (here / "loop").symlink_to("loop")
    assert places(reads=["org/name", "a\0b", "loop", None], out=here / "x") == {"out": here / "x"}


def test_a_hard_link_to_an_input_is_that_input(here: Path) -> None:
    os.link(here / "data.txt", here / "hard.txt")
    with pytest.raises(BadInputError, match="reads, and would be replaced"):
        places(reads=["data.txt"], out=here / "hard.txt")


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("option", ["--json", "--markdown", "--html", "--junit"])
@pytest.mark.parametrize("words", ["check my-adapter --quiet", "gate r.json"])
def test_a_report_to_a_hyphen_is_alone_on_stdout(here: Path, capsys: Capture, words: str, option: str) -> None:
    before = _holds(here)
    assert run([*words.split(), option, "in-a-file"]) == run([*words.split()])
    shown = capsys.readouterr()
    assert shown.err == ""
    written = (here / "in-a-file").read_text()
    (here / "in-a-file").unlink()
    run([*words.split(), option, "-"])
    streamed = capsys.readouterr()
    assert streamed.out == written != ""
    assert streamed.err * 2 == shown.out
    assert _holds(here) == before


@pytest.mark.parametrize("words", ["report r.json", "report r.json --format json", "report r.json --format html"])
def test_a_stored_result_to_a_hyphen_is_what_is_shown_without_it(here: Path, capsys: Capture, words: str) -> None:
    assert run(words.split()) == 0
    shown = capsys.readouterr()
    assert run([*words.split(), "-o", "-"]) == 0
    assert capsys.readouterr() == shown
    assert not (here / "-").exists()


def test_what_compares_and_what_inspects_take_a_hyphen_too(here: Path, capsys: Capture) -> None:
    assert run(["compare", "r.json", "r.json", "--json", "-", "--markdown", "c.md"]) == 0
    compared = capsys.readouterr()
    assert json.loads(compared.out)
    assert "nothing could be compared" in compared.err
    assert (here / "c.md").exists()
    run(["inspect", "my-adapter", "--json", "-"])
    inspected = capsys.readouterr()
    assert json.loads(inspected.out)["verdict"] in inspected.err.lower()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gate r.json --json - --html -", "standard output is named for two reports, and takes one; give each other a"),
        ("check my-adapter --trace -", "only a report can go to standard output; name a file"),
        ("run sway.yaml --trace -", "only a report can go to standard output; name a file"),
    ],
)
def test_stdout_takes_one_report_and_nothing_else(
    here: Path, checked: Calls, capsys: Capture, words: str, said: str
) -> None:
    before = _holds(here)
    assert run(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"sway: -: {said}")
    assert (captured.out, captured.err.count("\n"), checked) == ("", 1, [])
    assert _holds(here) == before


def test_the_journal_of_a_run_stands_beside_no_hyphen(here: Path) -> None:
    assert first_file({"json": STDOUT, "html": here / "x.html"}) == here / "x.html"
    assert first_file({"json": STDOUT}) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.usefixtures("here")
def test_a_report_that_stdout_does_not_take_is_an_error_and_a_reader_that_leaves_is_none() -> None:
    script = "import sys; from dlm_sway.cli.app import main; main()"
    words = [sys.executable, "-c", script, "gate", "r.json", "--coverage", "0", "--json", "-"]
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert lost.returncode == 3
    assert "sway: standard output: could not be written: No space left on device; name a file" in lost.stderr
    reading, writing = os.pipe()
    os.close(reading)
    left = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    whole = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (left.returncode, left.stderr) == (whole.returncode, whole.stderr)
