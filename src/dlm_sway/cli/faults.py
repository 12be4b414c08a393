"""How a command ends when it cannot do its work: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

import typer

from dlm_sway.core.errors import ExitCode, SwayError

DEBUG: Final = "SWAY_DEBUG"
_OF_HF: Final = frozenset({"accelerate", "gguf", "huggingface_hub", "peft", "torch", "transformers"})


def explain(fault: BaseException) -> int:
    """Print what went wrong on one line of stderr and return the exit code; with SWAY_DEBUG=1 the traceback too."""
    line, code = _line_and_code(fault)
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(fault)
    if line:
        say(line)
    return int(code)


def interrupted() -> int:
    """Print that Ctrl-C ended the command, and return its exit code."""
    say("interrupted; nothing was written")
    return int(ExitCode.INTERRUPTED)


def say(line: str) -> None:
    """Print one line on stderr, safe to print whatever is in it."""
    from dlm_sway.report.text import clean

    sys.stderr.write(f"sway: {clean(line)}\n")


def _line_and_code(fault: BaseException) -> tuple[str, ExitCode]:
    if isinstance(fault, SwayError):
        return fault.one_line(), fault.exit_code
    if isinstance(fault, KeyboardInterrupt | typer.Abort):
        return "interrupted; nothing was written", ExitCode.INTERRUPTED
    if hasattr(fault, "format_message"):  # a usage error of click, which some versions of typer carry within them
        return _usage(fault), ExitCode.USAGE
    return _unforeseen(fault), ExitCode.ERROR


def _unforeseen(fault: BaseException) -> str:
    if isinstance(fault, ModuleNotFoundError) and (fault.name or "").partition(".")[0] in _OF_HF:
        return f"{fault.name} is not installed; pip install 'dlm-sway[hf]'"
    if isinstance(fault, MemoryError):
        return "out of memory; give --batch-tokens a smaller number or use a machine with more"
    if isinstance(fault, OSError) and fault.strerror:
        return f"{f'{fault.filename}: ' if fault.filename else ''}{fault.strerror}"
    detail = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    return f"internal error: {detail}; please report it; {DEBUG}=1 shows the traceback"


def _usage(fault: BaseException) -> str:
    message = str(fault.format_message()).rstrip(".")  # type: ignore[attr-defined]
    command = getattr(getattr(fault, "ctx", None), "command_path", "sway")
    return f"{message}; see `{command} --help`" if message else ""  # no arguments: the help was printed
