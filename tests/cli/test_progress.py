from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from dlm_sway.cli.progress import BarProgress, LineProgress, show_progress
from dlm_sway.core.progress import Progress, Silent


class Clock:
    """Seconds that pass only when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says a person watches it."""

    def isatty(self) -> bool:
        return True


def test_lines_come_once_a_phase_and_at_most_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock=clock)
    progress.phase("loading\n\x1b[31mthe base")
    for _ in range(25):
        clock.now += 1
        progress.work(int(clock.now - 100) * 1000, 100_000)
    assert stream.getvalue().splitlines() == [
        "sway: loading the base",
        "sway: 10 % of 100,000 tokens, 1,000 tokens/s, 1:30 left",
        "sway: 20 % of 100,000 tokens, 1,000 tokens/s, 1:20 left",
    ]


def test_the_estimate_follows_a_total_that_grows() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock=clock)
    progress.work(0, 10)
    clock.now += 10
    progress.work(1000, 8_000_000)
    assert "0 % of 8,000,000 tokens, 100 tokens/s, 22:13:10 left" in stream.getvalue()


@pytest.mark.parametrize(("done", "total"), [(0, 0), (0, 10), (5, 5)])
def test_work_that_stands_still_or_is_none_prints_no_estimate(done: int, total: int) -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock=clock)
    progress.work(done, total)
    clock.now += 20
    progress.work(done, total)
    assert "left" not in stream.getvalue()


def test_the_bar_shows_phase_share_and_leaves_no_trace() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=100, markup=False)
    with BarProgress(console) as progress:
        progress.phase("[bold]scoring\x1b[31m")
        progress.work(50, 200)
        progress._bar.refresh()
        drawn = stream.getvalue()
    assert "[bold]scoring" in drawn
    assert "25 %" in drawn
    assert stream.getvalue().endswith("\x1b[2K")


def test_a_second_piece_of_work_starts_its_own_estimate() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock=clock)
    progress.work(0, 5_000)
    clock.now += 1000
    progress.work(5_000, 5_000)
    progress.work(0, 2_000)
    clock.now += 10
    progress.work(1_000, 2_000)
    assert stream.getvalue().splitlines()[-1] == "sway: 50 % of 2,000 tokens, 100 tokens/s, 0:10 left"


@pytest.mark.parametrize(("done", "total"), [(100, 300), (0, 100)])
def test_a_bar_that_was_full_moves_again_when_more_is_to_do(done: int, total: int) -> None:
    progress = BarProgress(Console(file=Terminal(), force_terminal=True, width=100))
    progress.work(100, 100)
    progress.work(done, total)
    task = progress._bar.tasks[0]
    assert (task.completed, task.total, task.finished) == (done, total, False)


def _shown(*, quiet: bool = False) -> Progress:
    with show_progress(quiet=quiet) as progress:
        return progress


def test_quiet_is_silent_a_pipe_gets_lines_and_a_terminal_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(_shown(quiet=True), Silent)
    assert isinstance(_shown(), BarProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(_shown(), LineProgress)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(_shown(), LineProgress)


def test_a_line_names_the_probes_that_the_work_is_for() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock=clock)
    progress.asking(["learned\x1b[31m", "on-target", "harmless"])
    clock.now += 20
    progress.work(10, 100)
    assert stream.getvalue() == "sway: 10 % of 100 tokens (learned and 2 more)\n"


def test_the_bar_names_the_probe() -> None:
    stream = io.StringIO()
    with BarProgress(Console(file=stream, force_terminal=True, width=100)) as bar:
        bar.asking(["on-target"])
        bar.work(1, 2)
        bar._bar.refresh()
    assert "on-target" in stream.getvalue()
