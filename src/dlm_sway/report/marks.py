"""How a verdict looks: a symbol and a word that need no colour, and a colour for those who have one."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.text import Text

from dlm_sway.core.result import Verdict

_SYMBOLS: Final = {
    Verdict.PASS: ("✓", "+"),
    Verdict.FAIL: ("✗", "x"),
    Verdict.WARN: ("!", "!"),
    Verdict.INCONCLUSIVE: ("?", "?"),
    Verdict.SKIP: ("–", "-"),  # noqa: RUF001 (the dash is the symbol)
    Verdict.ERROR: ("‼", "!!"),
}
_STYLES: Final = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.SKIP: "dim",
    Verdict.ERROR: "bold red",
}


def ascii_only(console: Console) -> bool:
    """Return whether the console's encoding has no room for symbols beyond ASCII."""
    return not console.encoding.lower().startswith("utf")


def mark(verdict: Verdict, console: Console, *, loud: bool = False) -> Text:
    """Return `✓ pass`, in capitals when `loud`."""
    symbol = _SYMBOLS[verdict][ascii_only(console)]
    return Text(f"{symbol} {verdict.upper() if loud else verdict}", style=_STYLES[verdict])
