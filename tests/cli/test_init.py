from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm_sway.cli.app import run
from dlm_sway.suite.loader import load_spec
from dlm_sway.suite.schema import FILE_NAME, HEAD

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, with an adapter and two files of data."""
    folder = tmp_path / 'odd "name": #1'
    (folder / "out").mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "org/name"}
    (folder / "out" / "adapter_config.json").write_text(json.dumps(config))
    (folder / "train.txt").write_text("one\ntwo\n")
    (folder / "held.txt").write_text("three\n")
    monkeypatch.chdir(folder)
    return folder


def test_it_writes_a_suite_that_loads_and_its_schema(here: Path, capsys: Capture) -> None:
    assert run(["init", "--adapter", "out", "--data", "train.txt", "--held-out", "held.txt"]) == 0
    assert "next: sway run sway.yaml" in capsys.readouterr().out
    suite = load_spec(here / "sway.yaml")
    assert (suite.name, suite.base, suite.adapter) == (here.name, "org/name", "out")
    assert [spec.kind for _, spec in suite.pairs] == ["delta_kl", "target_gain", "external_perplexity"]
    assert set(suite.data) == {"train", "held_out"}
    text = (here / "sway.yaml").read_text()
    assert text.splitlines()[0] == HEAD
    assert json.loads((here / FILE_NAME).read_text())["title"] == "A suite of sway"


def test_without_data_it_writes_what_can_be_asked(here: Path) -> None:
    assert run(["init", "--adapter", "out"]) == 0
    suite = load_spec(here / "sway.yaml")
    assert [spec.kind for _, spec in suite.pairs] == ["delta_kl", "external_perplexity"]
    assert "# - name: on-target" in (here / "sway.yaml").read_text()


def test_paths_are_written_as_the_file_needs_them(here: Path) -> None:
    (here / "base").mkdir()
    (here / "suites").mkdir()
    assert run(["init", "suites/s.yaml", "--adapter", "out", "--base", "base", "--data", "train.txt"]) == 0
    suite = load_spec(here / "suites" / "s.yaml")
    assert suite.model.adapter is not None
    assert suite.model.adapter.resolve() == here / "out"
    assert Path(suite.model.base).resolve() == here / "base"
    assert suite.data["train"].resolve() == here / "train.txt"


def test_paths_lead_out_of_a_folder_that_is_a_link(here: Path) -> None:
    (here / "far" / "away").mkdir(parents=True)
    (here / "suites").symlink_to(here / "far" / "away")
    assert run(["init", "suites/s.yaml", "--adapter", "out", "--data", "train.txt"]) == 0
    suite = load_spec(here / "suites" / "s.yaml")
    assert suite.model.adapter is not None
    assert suite.model.adapter.resolve() == here / "out"
    assert suite.data["train"].resolve() == here / "train.txt"


def test_the_suite_is_named_after_its_folder_however_that_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "out")
    assert run(["init", "../sway.yaml", "--adapter", "."]) == 0
    assert load_spec(here / "sway.yaml").name == here.name


def test_a_link_that_leads_there_stays_in_the_path(here: Path) -> None:
    (here / "latest").symlink_to(here / "out")
    assert run(["init", "--adapter", "latest"]) == 0
    assert load_spec(here / "sway.yaml").adapter == "latest"


def test_a_file_that_is_there_is_replaced_on_demand_only(here: Path, capsys: Capture) -> None:
    (here / "sway.yaml").write_text("mine")
    assert run(["init", "--adapter", "out"]) == 2
    assert "is there already; name another file, or give --force" in capsys.readouterr().err
    assert (here / "sway.yaml").read_text() == "mine"
    assert run(["init", "--adapter", "out", "--force"]) == 0


def test_where_nobody_can_be_asked_the_option_is_named(here: Path, capsys: Capture) -> None:
    assert run(["init"]) == 2
    assert "--adapter is missing" in capsys.readouterr().err
    assert not (here / "sway.yaml").exists()


def test_a_person_is_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["out", "train.txt", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    assert run(["init"]) == 0
    assert set(load_spec(here / "sway.yaml").data) == {"train"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--held-out", "held.txt"], "no data is named; name that too, with --data"),
        (["--data", "nofile.txt"], "nofile.txt: no such file"),
        (["--data", "train.txt", "--held-out", "nofile.txt"], "nofile.txt: no such file"),
    ],
)
def test_data_that_it_could_not_write_of_are_refused(here: Path, capsys: Capture, words: list[str], said: str) -> None:
    assert run(["init", "--adapter", "out", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (here / "sway.yaml").exists()


@pytest.mark.usefixtures("here")
def test_the_next_command_can_be_pasted(capsys: Capture) -> None:
    assert run(["init", "my suite.yaml", "--adapter", "out"]) == 0
    assert "next: sway run 'my suite.yaml'" in capsys.readouterr().out


def test_a_schema_of_the_users_own_is_replaced_on_demand_only(here: Path, capsys: Capture) -> None:
    (here / FILE_NAME).write_text('{"title": "Sway of bridges"}')
    assert run(["init", "--adapter", "out"]) == 2
    assert "no schema that sway wrote" in capsys.readouterr().err
    assert not (here / "sway.yaml").exists()
    assert run(["init", "--adapter", "out", "--force"]) == 0
    assert run(["init", "other.yaml", "--adapter", "out"]) == 0  # the schema is sway's now
