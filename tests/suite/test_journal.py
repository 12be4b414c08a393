from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dlm_sway.core.progress import Silent
from dlm_sway.suite.journal import Journal, journal_path, stopped_run


class Listener(Silent):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def phase(self, label: str) -> None:
        self.heard.append(label)

    def work(self, done: int, total: int) -> None:
        self.heard.append((done, total))

    def asking(self, names: object) -> None:
        self.heard.append(names)


def test_it_passes_on_what_it_hears_and_is_gone_when_the_run_is_done(tmp_path: Path) -> None:
    listener, path = Listener(), tmp_path / "j"
    with Journal(path, {"suite": "x"}, listener) as journal:
        journal.phase("scoring")
        journal.work(1, 2)
        journal.asking(["a"])
        assert path.exists()
    assert listener.heard == ["scoring", (1, 2), ["a"]]
    assert not path.exists()


def test_a_run_that_stopped_leaves_how_far_it_came(tmp_path: Path) -> None:
    times = iter([0.0, 1.0, 6.0])
    journal = Journal(tmp_path / "j", {"suite": "x"}, Silent(), clock=lambda: next(times))
    journal.__enter__()
    journal.phase("scoring")
    journal.work(10, 100)
    journal.work(20, 100)  # too soon after the last
    journal.work(30, 120)
    journal.__exit__(KeyboardInterrupt)
    found = stopped_run(tmp_path / "j")
    assert found is not None
    assert (found.asked, found.phase, found.done, found.total) == ({"suite": "x"}, "scoring", 30, 120)


@pytest.mark.parametrize("tail", ['{"done": 3', "\x00\xff", "[1]\n", '{"done": "many"}\n'])
def test_a_line_that_a_crash_cut_short_is_skipped(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "j"
    path.write_text(json.dumps({"journal": 1, "began": 5.0, "asked": {}}) + "\n" + tail, encoding="latin-1")
    found = stopped_run(path)
    assert found is not None
    assert (found.when.timestamp(), found.done) == (5.0, 0)


@pytest.mark.parametrize("text", ["", "nonsense", '{"began": "x", "asked": {}}', '{"began": 1}'])
def test_what_is_no_journal_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "j").write_text(text)
    assert stopped_run(tmp_path / "j") is None
    assert stopped_run(tmp_path / "absent") is None


def test_a_place_that_cannot_be_written_costs_the_journal_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Journal(tmp_path / "file" / "j", {}, Silent()) as journal:
        journal.phase("scoring")


@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to"])
def test_a_link_that_stands_in_its_place_costs_nobody_what_it_leads_to(tmp_path: Path, how: str) -> None:
    other, path = tmp_path / "other", tmp_path / "j"
    other.write_text("by hand")
    getattr(path, how)(other)
    with Journal(path, {"suite": "x"}, Silent()) as journal:
        journal.phase("scoring")
        assert stopped_run(path) is not None
    assert other.read_text() == "by hand"
    assert not path.exists()


def test_a_link_to_nowhere_makes_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "j").symlink_to(tmp_path / "elsewhere")
    with Journal(tmp_path / "j", {}, Silent()):
        assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes in the file system")
def test_a_pipe_that_stands_in_its_place_holds_up_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "j")
    assert stopped_run(tmp_path / "j") is None
    with Journal(tmp_path / "j", {}, Silent()):
        assert stopped_run(tmp_path / "j") is not None


def test_it_stands_beside_the_result_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert journal_path(Path("s.yaml"), tmp_path / "out.json") == tmp_path / ".out.json.journal"
    here, there = (journal_path(Path(folder) / "s.yaml", None) for folder in ("a", "b"))
    assert here.parent == there.parent == tmp_path / "dlm-sway" / "journals"
    assert here != there


@pytest.mark.parametrize("began", ["1e300", "-1e300", "1e18", "NaN", "[]"])
def test_a_journal_of_no_time_is_none(tmp_path: Path, began: str) -> None:
    path = tmp_path / "j"
    path.write_text(f'{{"journal": 1, "began": {began}, "asked": {{}}}}\n')
    assert stopped_run(path) is None
