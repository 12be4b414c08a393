"""Errors that a user can act on.

Every error names what happened, where, and what to do next. The command line turns the class into an exit
code and prints one line; nothing here ever reaches a user as a traceback.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of every sway command; documented in the README and never renumbered."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    ERROR = 3
    INCONCLUSIVE = 4
    INTERRUPTED = 130


class SwayError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what is wrong, in one clause, with the offending value.
        where: the file, line, tensor or option it was found in; omitted when `what` says it.
        remedy: what the user can do next, as a sentence or a command.
    """

    exit_code: ExitCode = ExitCode.ERROR

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str | None = None) -> None:
        """Keep the three parts apart, so that renderers can lay them out."""
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """Return `where: what; remedy` on one line, whatever the parts contain."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        text = f"{head}; {self.remedy}" if self.remedy else head
        return " ".join(text.split())


class BadInputError(SwayError):
    """The user's input cannot be used: a path, a file, an option, a spec (exit code 2)."""

    exit_code = ExitCode.USAGE


class AdapterError(BadInputError):
    """An adapter directory that cannot be read or does not fit its base."""


class NullRuleError(SwayError):
    """A trained tensor has no rule for the rotation null, so the adapter cannot be calibrated."""


class ViewError(SwayError):
    """Two views of one model were open together, or a view was used after its context closed."""


class MissingExtraError(SwayError):
    """An optional dependency is not installed; the remedy is the exact command that installs it."""


class CannotRunError(SwayError):
    """The model or the machine could not do the work (exit code 3)."""


class NotOfferedError(CannotRunError):
    """What is behind a backend cannot answer such a question at all: nothing was asked, and nothing is wrong."""


class StoppedError(SwayError):
    """The user ended the run with Ctrl-C (exit code 130)."""

    exit_code = ExitCode.INTERRUPTED
