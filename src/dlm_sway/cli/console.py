"""Where commands print: a console for results on stdout, one for everything else on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console

from dlm_sway.core.errors import CannotRunError


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


def plain_console(file: TextIO, *, width: int) -> Console:
    """Return the same on a file, without colour and `width` characters wide whatever the environment says."""
    return _Console(
        markup=False,
        emoji=False,
        highlight=False,
        file=file,
        color_system=None,
        force_terminal=False,
        width=width,
    )


def never_fail_to_encode() -> None:
    """Make stdout and stderr print `?` for what their encoding lacks, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream that was replaced by one that cannot change
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def never_without_streams() -> None:
    """Put an open file that keeps nothing in the place of a stdout or stderr that was closed before the start.

    It takes their numbers too: else a result could be opened under one, and get what libraries in C print there.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = -1
            while nowhere < number:  # the lowest number that is free is given first
                nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", errors="replace", closefd=False))


def print_line(line: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Print a line on stderr, or on `stream`; where nobody can read it, the line is lost and never the work."""
    stream = sys.stderr if stream is None else stream
    try:
        stream.write(f"{line}{end}")
        stream.flush()
    except (OSError, ValueError, AttributeError):  # the reader left, the disk is full, the stream is closed or None
        discard(stream)


def write_stdout(text: str) -> None:
    """Write a document on stdout in UTF-8, as it would stand in a file; a reader that leaves loses the rest of it.

    Raises:
        CannotRunError: the system refused the write, as when stdout is a file on a disk that is full.
    """
    try:
        sys.stdout.flush()
        if (raw := getattr(sys.stdout, "buffer", None)) is None:
            sys.stdout.write(text)
        else:
            raw.write(text.encode("utf-8", errors="replace"))
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except (OSError, ValueError) as fault:
        discard(sys.stdout)
        what = f"could not be written: {getattr(fault, 'strerror', None) or fault}"
        remedy = "name a file, or look at what stdout is sent to"
        raise CannotRunError(what, where="standard output", remedy=remedy) from fault


def discard(stream: object) -> None:
    """Send the rest of what goes to `stream` nowhere, so that the flush at exit cannot fail again."""
    with suppress(OSError, ValueError, AttributeError):  # a stream without a file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person watches `stream` on a terminal that can rewrite a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
