"""Text from files and models, made safe to print.

An adapter's name, a tensor's key or a line of data can hold escape codes that recolour, hide or rewrite what a
terminal shows. Everything that a report prints and that sway did not write itself goes through `clean`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# CSI (colours, cursor), OSC (titles, links) and the two-character sequences of ECMA-48.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[@-~]")
# XML 1.0 has no form for these, not even as a character reference.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_AS_SPACE: Final = frozenset({"\n", "\r", "\t", "\v", "\f", "\x85", "\u2028", "\u2029"})


def clean(text: object, *, limit: int = 2000) -> str:
    """Return `text` on one line, without escape codes, control characters or invisible formatting.

    Args:
        text: anything; its `str` is taken.
        limit: longer text is cut there, so that a key of ten megabytes cannot flood a terminal.
    """
    plain = _ESCAPES.sub("", str(text)[: 4 * limit])
    return shorten("".join(_shown(char) for char in plain).strip(), limit)


def shorten(text: str, width: int) -> str:
    """Return `text` in at most `width` characters, the last an ellipsis where some were cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def legal_in_xml(text: str) -> str:
    """Return `text` with a replacement character for each that XML cannot hold."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _shown(char: str) -> str:
    if char in _AS_SPACE:
        return " "
    kind = unicodedata.category(char)
    if kind == "Cs":  # half a surrogate pair, from a file name: no encoding can print it
        return "\N{REPLACEMENT CHARACTER}"
    if char in "\ufffe\uffff":  # no characters: XML, and what draws pictures, cannot hold them
        return "\N{REPLACEMENT CHARACTER}"
    return "" if kind in ("Cc", "Cf") else char  # Cf holds the marks that turn the direction of text round
