"""How a command ends when it cannot do its work: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer

from dlm_sway.core.errors import ExitCode, StoppedError, SwayError

DEBUG: Final = "SWAY_DEBUG"
_NOTHING: Final = "nothing was written"
_OF_PYDANTIC: Final = ": Value error, "  # how some versions of typer pass on what a choice refused
_OF_HF: Final = frozenset({"accelerate", "gguf", "huggingface_hub", "peft", "torch", "transformers"})


def explain(fault: BaseException) -> int:
    """Print what went wrong on one line of stderr and return the exit code; with SWAY_DEBUG=1 the traceback too.

    A suite file may have many faults; each has a line.
    """
    from dlm_sway.cli.console import print_line
    from dlm_sway.suite.faults import SpecError

    line, code = _line_and_code(fault)
    if os.environ.get(DEBUG, "") not in ("", "0"):
        print_line("".join(traceback.format_exception(fault)).rstrip())
    for each in fault.lines() if isinstance(fault, SpecError) else (line,):
        if each:
            say(each)
    return int(code)


def interrupted() -> int:
    """Print that Ctrl-C ended the command, and return its exit code."""
    say(f"interrupted; {_NOTHING}")
    return int(ExitCode.INTERRUPTED)


@contextmanager
def ctrl_c_explained() -> Iterator[None]:
    """Turn Ctrl-C inside the block into an error that says what is kept of the work, as its notes have it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise StoppedError("interrupted", remedy="; ".join(getattr(stop, "__notes__", ())) or _NOTHING) from stop


def pass_on_warnings() -> None:
    """Print sway's own warnings on stderr, a line each; calling it twice is harmless."""
    import logging

    class _Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger = logging.getLogger("dlm_sway")
    if not logger.handlers:
        logger.addHandler(_Said())


def say(line: str) -> None:
    """Print one line on stderr, safe to print whatever is in it."""
    from dlm_sway.cli.console import print_line
    from dlm_sway.report.text import clean

    print_line(f"sway: {clean(line)}")


def _line_and_code(fault: BaseException) -> tuple[str, ExitCode]:
    if isinstance(fault, SwayError):
        return fault.one_line(), fault.exit_code
    if isinstance(fault, KeyboardInterrupt | typer.Abort):
        return f"interrupted; {_NOTHING}", ExitCode.INTERRUPTED
    if hasattr(fault, "format_message"):  # a usage error of click, which some versions of typer carry within them
        return _usage(fault), ExitCode.USAGE
    return _unforeseen(fault), ExitCode.ERROR


def _unforeseen(fault: BaseException) -> str:
    if isinstance(fault, ModuleNotFoundError) and (fault.name or "").partition(".")[0] in _OF_HF:
        from dlm_sway.core.extras import install_command

        return f"{fault.name} is not installed; {install_command(str(fault.name).partition('.')[0])}"
    if isinstance(fault, MemoryError):
        return "out of memory; give --batch-tokens a smaller number or use a machine with more"
    if isinstance(fault, OSError) and fault.strerror:
        return f"{f'{fault.filename}: ' if fault.filename else ''}{fault.strerror}"
    detail = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    return f"internal error: {detail}; please report it; {DEBUG}=1 shows the traceback"


def _usage(fault: BaseException) -> str:
    message = (_of_environment(fault) or str(fault.format_message())).rstrip(".")  # type: ignore[attr-defined]
    message = message.replace(_OF_PYDANTIC, ": ", 1)
    command = getattr(getattr(fault, "ctx", None), "command_path", "sway")
    return f"{message}; see `{command} --help`" if message else ""  # no arguments: the help was printed


def _of_environment(fault: Any) -> str | None:
    """Return what is wrong with a value that the environment set, which nobody typed as an option; else None."""
    context: Any = getattr(fault, "ctx", None)
    param: Any = getattr(fault, "param", None)
    source = context.get_parameter_source(param.name) if context is not None and param is not None else None
    if source is None or source.name != "ENVIRONMENT":
        return None
    named = [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())
    named += [f"{context.auto_envvar_prefix}_{param.name.upper()}"] if context.auto_envvar_prefix else []
    variable = next((name for name in named if os.environ.get(name)), None)
    return variable and f"{variable} is {os.environ[variable]!r} in the environment: {fault.message}"
