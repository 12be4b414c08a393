"""The style of a text in numbers, always of equally many words: a short text repeats itself less than a long one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.extras import needs_extra

F64: TypeAlias = npt.NDArray[np.float64]

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_END: Final = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*(?=\s|$)|\n\s*\n")
_PUNCTUATION: Final = {
    "commas": ",\u3001\uff0c",
    "colons and semicolons": ";:\uff1a\uff1b",
    "dashes and brackets": "\u2013\u2014()[]",
    "quotes": '"\u201c\u201d\u00ab\u00bb',
    "questions and exclamations": "?!\uff1f\uff01",
}
# English function words by kind (after Mosteller and Wallace 1964); rates of 0 in other languages say nothing there.
_FUNCTION_WORDS: Final = {
    "articles": "a an the",
    "prepositions": "of in to for with on at by from about into over after under between through",
    "conjunctions": "and but or nor so yet because although while if that which who when where",
    "auxiliaries": "is are was were be been am do does did have has had will would can could shall should may might",
    "first person": "i me my mine we us our ours",
    "second person": "you your yours",
    "third person": "he him his she her hers it its they them their theirs",
}
_KINDS: Final = {name: frozenset(words.split()) for name, words in _FUNCTION_WORDS.items()}
_READABILITY: Final = ("automated_readability_index", "coleman_liau_index", "lix")

NAMES: Final = ("log sentence length", "word length", "type-token ratio", *_PUNCTUATION, *_KINDS)
READABILITY_NAMES: Final = tuple(name.replace("_", " ") for name in _READABILITY)


def windows(text: str, n_words: int) -> list[str]:
    """Return the text in pieces of exactly `n_words` words with what follows them; what is left over is not used."""
    starts = [match.start() for match in _WORD.finditer(text)]
    edges = [*starts[::n_words], len(text)] if len(starts) % n_words == 0 else starts[::n_words]
    return [text[a:b] for a, b in pairwise(edges)]


def features(piece: str) -> F64:
    """Return the features of a piece in the order of `NAMES`, float64[K]; rates are per word.

    Source: rates of function words as the mark of a writer: Mosteller and Wallace (1964), Inference and Disputed
    Authorship.
    """
    words = [match[0].lower() for match in _WORD.finditer(piece)]
    n = max(1, len(words))
    sentences = max(1, sum(1 for _ in _END.finditer(piece.strip())))
    values = [np.log(n / sentences), sum(map(len, words)) / n, len(set(words)) / n]
    values += [sum(piece.count(mark) for mark in marks) / n for marks in _PUNCTUATION.values()]
    values += [sum(word in kind for word in words) / n for kind in _KINDS.values()]
    return np.array(values, dtype=np.float64)


def resolution(n_words: int, *, readability: bool) -> F64:
    """Return what one word or mark more changes each feature by: no spread is taken to be smaller, float64[K]."""
    rates = [1 / n_words] * (1 + len(_PUNCTUATION) + len(_KINDS))
    return np.array([0.1, 0.1, *rates, *([0.5] * len(_READABILITY) if readability else [])])


def measurer(*, readability: bool) -> Callable[[Sequence[str]], F64]:
    """Return what turns pieces into features float64[n, K]; with readability, three scores by textstat come last.

    Only scores that count letters, words and sentences are used: those by syllables fetch a dictionary by network.

    Raises:
        MissingExtraError: readability is asked for and textstat is not installed.
    """
    if not readability:
        return lambda pieces: np.stack([features(piece) for piece in pieces])
    with needs_extra("readability"):
        import textstat
    scores = [getattr(textstat, name) for name in _READABILITY]
    return lambda pieces: np.stack([[*features(piece), *(float(s(piece)) for s in scores)] for piece in pieces])
