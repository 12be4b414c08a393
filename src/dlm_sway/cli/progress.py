"""Progress on stderr: a bar with an estimate for a person, plain lines for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from dlm_sway.cli.console import is_terminal, print_line, stderr_console
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.report.text import clean, shorten

_EVERY_S: Final = 10.0
_NAME_WIDTH: Final = 32


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Open what reports progress: nothing when `quiet`, a bar on a terminal, else lines; the bar leaves no trace."""
    if quiet:
        yield Silent()
    elif is_terminal(sys.stderr):
        with BarProgress(stderr_console()) as bar:
            yield bar
    else:
        yield LineProgress(sys.stderr)


class LineProgress:
    """Prints a line a phase, and of the work in it at most one line every ten seconds.

    Args:
        stream: where to.
        clock: seconds that only go up.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last = clock()
        self._start: tuple[float, int] | None = None
        self._done = 0
        self._names = ""

    def phase(self, label: str) -> None:
        """Print what is being done now."""
        self._print(clean(label))

    def work(self, done: int, total: int) -> None:
        """Print share, speed and time left, unless a line was printed just now."""
        now = self._clock()
        if self._start is None or done < self._done:  # less than before is another piece of work
            self._start = (now, done)
        self._done = done
        if now - self._last >= _EVERY_S:
            line = f"{_share(done, total)} of {total:,} tokens{self._estimate(now, done, total)}"
            self._print(f"{line} ({self._names})" if self._names else line)

    def asking(self, names: Sequence[str]) -> None:
        """Remember for whom the work is done, for the next line."""
        self._names = _named(names)

    def _estimate(self, now: float, done: int, total: int) -> str:
        start, before = self._start or (now, done)
        if now <= start or done <= before:
            return ""
        speed = (done - before) / (now - start)
        return f", {speed:,.0f} tokens/s, {_clock_time((total - done) / speed)} left"

    def _print(self, line: str) -> None:
        self._last = self._clock()
        print_line(f"sway: {line}", self._stream)


class BarProgress:
    """Draws one bar that is gone when the work is done."""

    def __init__(self, console: Console) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _Share(),
            _Speed(),
            TimeRemainingColumn(compact=True),
        )
        self._bar = Bar(*columns, console=console, transient=True)
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe the bar."""
        self._bar.stop()

    def phase(self, label: str) -> None:
        """Name what is being done now; the work done so far stays counted."""
        self._bar.update(self._task, description=clean(label))

    def asking(self, names: Sequence[str]) -> None:
        """Name the probes that the work is done for."""
        self._bar.update(self._task, description=_named(names))

    def work(self, done: int, total: int) -> None:
        """Move the bar."""
        task = self._bar.tasks[0]
        if task.finished or done < task.completed:  # more was planned, or other work begins: the estimate starts anew
            self._bar.reset(self._task, total=total, completed=done)
        else:
            self._bar.update(self._task, completed=done, total=total)


class _Share(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_share(int(task.completed), int(task.total)) if task.total else "")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} tokens/s" if task.speed else "", style="dim")


def _named(names: Sequence[str]) -> str:
    first = shorten(clean(names[0]), _NAME_WIDTH) if names else ""
    return f"{first} and {len(names) - 1} more" if len(names) > 1 else first


def _share(done: int, total: int) -> str:
    return f"{100 * done // total if total else 0} %"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
