"""Where commands print: a console for results on stdout, one for everything else on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console


class _Console(Console):
    """A console whose reader may leave: `sway check ... | head -1` still ends with the exit code of the verdict."""

    def on_broken_pipe(self) -> None:
        """Say nothing more, instead of ending the program with the exit code of a failed check."""
        self.quiet = True
        discard(self.file)


def stdout_console() -> Console:
    """Return a console on stdout that reads no markup in what it prints, and has no colour when piped."""
    return _Console(markup=False, emoji=False, highlight=False)


def stderr_console() -> Console:
    """Return the same on stderr."""
    return _Console(markup=False, emoji=False, highlight=False, stderr=True)


def plain_console(file: TextIO) -> Console:
    """Return the same on a file, without colour whatever the environment says."""
    return _Console(markup=False, emoji=False, highlight=False, file=file, color_system=None, force_terminal=False)


def never_fail_to_encode() -> None:
    """Make stdout and stderr print `?` for what their encoding lacks, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream that was replaced by one that cannot change
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def discard(stream: object) -> None:
    """Send the rest of what goes to `stream` nowhere, so that the flush at exit cannot fail again."""
    with suppress(OSError, ValueError, AttributeError):  # a stream without a file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person watches `stream` on a terminal that can rewrite a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
