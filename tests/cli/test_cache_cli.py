from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dlm_sway.cli.app import run
from dlm_sway.cli.cache import size
from dlm_sway.core.paths import results_dir
from dlm_sway.engine.disk_store import DiskStore

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def _fill(n: int) -> None:
    with DiskStore(results_dir()) as store:
        assert store.put_many({b"%d" % i: b"v" * 1024 for i in range(n)})


def test_info_says_where_and_how_much(capsys: Capture) -> None:
    _fill(1200)
    assert run(["cache", "info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(results_dir() / "results-1.sqlite3")
    assert lines[1] == "  1,200 results, 1.2 MiB of values"
    assert "of at most about 1.0 GiB" in lines[2]
    assert lines[3].startswith("  last used 2")


def test_info_of_nothing_says_how_to_keep_something_and_makes_no_file(capsys: Capture, tmp_path: Path) -> None:
    assert run(["cache", "info"]) == 0
    assert "nothing is kept; `sway check ADAPTER --cache` keeps results here" in capsys.readouterr().out
    assert not (tmp_path / "xdg").exists()


def test_clear_forgets_and_says_how_much(capsys: Capture) -> None:
    _fill(1200)
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("forgot 1,200 results and freed 1.")
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "forgot 0 results and freed 0 bytes\n"
    with DiskStore(results_dir()) as store:
        assert store.info().entries == 0


def test_a_damaged_cache_is_one_line_and_no_end(capsys: Capture) -> None:
    results_dir().mkdir(parents=True)
    (results_dir() / "results-1.sqlite3").write_bytes(b"garbage " * 500)
    assert run(["cache", "info"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("sway: the cache of results was damaged")
    assert captured.err.count("\n") == 1
    assert "nothing is kept" in captured.out


def test_a_cache_that_cannot_be_cleared_is_exit_3(capsys: Capture) -> None:
    (results_dir() / "results-1.sqlite3").mkdir(parents=True)
    assert run(["cache", "clear"]) == 3
    assert "could not be cleared; delete the file by hand" in capsys.readouterr().err


def test_cache_alone_shows_its_help_and_is_a_usage_error(capsys: Capture) -> None:
    assert run(["cache"]) == 2
    assert "clear" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["cache info", "cache --help", "trace --help", "check --help"])
def test_these_load_no_torch(command: str) -> None:
    script = (
        f"import sys\nfrom dlm_sway.cli.app import run\nrun({command.split()!r})\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (2**20 * 3, "3.0 MiB"), (2**31, "2.0 GiB")],
)
def test_sizes_read_in_the_largest_unit_they_fill(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text
