"""Cuts a text in two where a reader would: between words, or between characters where a script has no spaces."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_GAP: Final = re.compile(r"(?<=\S)\s+(?=\S)")
_JOINER: Final = "\u200d"
_SKIN: Final = range(0x1F3FB, 0x1F400)
_OFF_CENTRE: Final = 4  # a gap farther from the middle than a quarter of the text does not halve it


def halves(text: str) -> tuple[str, str] | None:
    """Return the two halves of a text, the second with the space before its first word; None where it has no two.

    The cut is the gap between words that is nearest to the middle. Where no gap lies in the middle half of the text, as
    in scripts without spaces, it is the first place from the middle on that parts no character from its marks. Encoded
    together, the two give the very tokens of the text, so a model meets no boundary that it would not meet in it.
    """
    text = text.strip()
    middle = len(text) / 2
    gaps = [m.start() for m in _GAP.finditer(text)]
    cut = min(gaps, key=lambda at: (abs(at - middle), at), default=0)
    if abs(cut - middle) > len(text) / _OFF_CENTRE:
        cut = next((at for at in range(max(1, round(middle)), len(text)) if not _joined(text, at)), cut)
    return (text[:cut], text[cut:]) if text[:cut].strip() and text[cut:].strip() else None


def tail(text: str, most: int) -> str:
    """Return the end of a text, at most about `most` characters, from the beginning of a word where there is one."""
    if len(text) <= most:
        return text
    part = text[-most:]
    gap = _GAP.search(part)
    if gap and gap.end() < most // 2:
        return part[gap.end() :]
    start = next((at for at in range(len(part)) if not _joined(text, len(text) - most + at)), 0)
    return part[start:]


def _joined(text: str, at: int) -> bool:
    """Return whether the character at `at` belongs to the one before it: a combining mark, or a part of an emoji."""
    here = text[at]
    return (
        unicodedata.category(here).startswith("M")
        or here == _JOINER
        or text[at - 1] == _JOINER
        or ord(here) in _SKIN
        or (unicodedata.category(here) == "Zs")
    )
