"""Text from models and files, made inert in Markdown.

What is not sway's own must not become a link, an image, HTML, a heading, a cell border, a formula, or a mention that
writes to somebody. Punctuation with a meaning is escaped with a backslash; where a reader links plain text by itself
(addresses, @names, #numbers), an invisible space breaks the pattern.
"""

from __future__ import annotations

import re
from typing import Final

from dlm_sway.report.text import clean

_BREAK: Final = "&#8203;"
_ESCAPED: Final = re.compile(r"([\\`*_\[|~$^])")
_AT_START: Final = re.compile(r"^([-+](?=[\s-]|$)|[=#:]|\d+[.)](?=\s|$))")
_WWW: Final = re.compile(r"\b(www)\.", re.IGNORECASE)
_ISSUE: Final = re.compile(r"(#|\bGH-)(?=\d)", re.IGNORECASE)


def inert(text: object, *, limit: int = 2000) -> str:
    """Return `text` on one line, so that a Markdown reader shows its characters and nothing else happens."""
    shown = clean(text, limit=limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = _ESCAPED.sub(r"\\\1", shown)
    shown = _AT_START.sub(_escaped, shown)
    shown = _ISSUE.sub(rf"\1{_BREAK}", shown)  # before the other breaks, whose own number it would take for an issue
    shown = shown.replace("://", f":{_BREAK}//").replace("@", f"@{_BREAK}")
    return _WWW.sub(rf"\1{_BREAK}.", shown)


def _escaped(start: re.Match[str]) -> str:
    """Return what would begin a list, a heading or an underline, with its last character escaped."""
    return f"{start[0][:-1]}\\{start[0][-1]}"


def in_html(text: object, *, limit: int = 2000) -> str:
    """Return `text` for the inside of an HTML element within Markdown, such as a summary."""
    shown = clean(text, limit=limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = "".join(f"&#{ord(char)};" if char in "\\`*_{}[]()#!|~$\"'" else char for char in shown)
    shown = shown.replace("://", f":{_BREAK}//").replace("@", f"@{_BREAK}")
    shown = _WWW.sub(rf"\1{_BREAK}.", shown)
    return re.sub(r"(&#35;|\bGH-)(?=\d)", rf"\1{_BREAK}", shown)


def row(*cells: str) -> str:
    """Return a row of a table; the cells are escaped already."""
    return f"| {' | '.join(cell or ' ' for cell in cells)} |"
