from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dlm_sway.cli.app import run
from dlm_sway.engine.trace import TraceWriter

Capture = pytest.CaptureFixture[str]

EXPECTED = """\
4,000 view-tokens in 2 passes and 3.0 s (1,329 tokens/s), 1.0 s between them; 70 positions from the cache

  path     reducers  views  passes  seconds  share  tokens  tokens/s  cached
  stacked  gain kl       3       2     3.00  100 %   4,000     1,333       0
  cache                          0     0.01    0 %       0                70
  all                            2     3.01  100 %   4,000     1,329      70

  probe     seconds  share
  delta_kl     2.50   83 %
  gain         0.51   17 %
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path, ticks = tmp_path / "trace.jsonl", itertools.count(0.0, 4 / 3)
    with TraceWriter(path, clock=lambda: next(ticks)) as trace:
        common = {"views": 3, "rows": 2, "tokens": 2000, "scored": 30, "reducers": ("kl", "gain"), "path": "stacked"}
        trace.add(seconds=2.0, **common, probes=["delta_kl"])
        trace.add(seconds=1.0, **common, probes=["delta_kl", "gain"])
        trace.add(seconds=0.01, path="cache", hit=70, probes=["gain"])
    return path


def test_a_trace_is_summed_up(file: Path, capsys: Capture) -> None:
    assert run(["trace", str(file)]) == 0
    assert capsys.readouterr().out == EXPECTED


def test_lines_that_are_no_trace_are_counted_and_named(file: Path, capsys: Capture) -> None:
    file.write_bytes(file.read_bytes() + b'{"t": 1, "ms"\n' * 7)
    assert run(["trace", str(file)]) == 0
    assert "7 lines are no trace and are left out: 4, 5, 6, 7, 8, ..." in capsys.readouterr().out


def test_names_in_a_trace_cannot_change_the_terminal(file: Path, capsys: Capture) -> None:
    file.write_text(file.read_text().replace("stacked", "\\u001b[31m[bold]evil[/bold]"))
    assert run(["trace", str(file)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]evil[/bold]" in out


@pytest.mark.parametrize("content", [None, b"", b"nothing\n"])
def test_a_file_without_a_trace_is_one_line_and_exit_2(tmp_path: Path, capsys: Capture, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    assert run(["trace", str(tmp_path / "t")]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
