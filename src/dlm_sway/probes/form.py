"""The form of a text in a few numbers, without a model: what control text is matched on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")
_SENTENCE = re.compile("[.!?\u3002\uff01\uff1f]+")  # full stops of Latin and CJK scripts
_ADDRESS = frozenset({"you", "your", "yours", "i", "my", "we", "our"})
_SYMBOLS = frozenset("{}()[]<>=;_/\\|#*$&")


@lru_cache(maxsize=1024)
def features(text: str) -> npt.NDArray[np.float64]:
    """Return the form of a text, float64[7].

    Word length, sentence length (log words), share of capitalised words beyond the sentences' first (names), of words
    with digits, of words that address or speak in person, of symbols as in code and tables, and of letters beyond
    ASCII.
    """
    words = _WORD.findall(text)
    n, characters = max(len(words), 1), max(len(text), 1)
    sentences = max(len(_SENTENCE.findall(text)), 1)
    capitalised = sum(w[0].isupper() for w in words)
    return np.array(
        [
            sum(map(len, words)) / n,
            np.log(n / sentences),
            max(0, capitalised - sentences) / n,
            sum(any(c.isdigit() for c in w) for w in words) / n,
            sum(w.lower() in _ADDRESS for w in words) / n,
            sum(c in _SYMBOLS for c in text) / characters,
            sum(ord(c) > 127 and c.isalpha() for c in text) / characters,  # noqa: PLR2004 (ASCII ends there)
        ]
    )


def nearest(wanted: Sequence[str], pool: Sequence[str], *, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return, for each wanted text in a random order, the nearest text of the pool that is still free.

    Returns:
        Indices into `pool`, int64[len(wanted)], in the order of `wanted`, all distinct.

    Raises:
        ValueError: the pool is smaller than what is wanted.
    """
    if len(pool) < len(wanted):
        raise ValueError(f"{len(wanted)} texts cannot be matched from {len(pool)}")
    a, b = (np.stack([features(t) for t in texts]) for texts in (wanted, pool))
    spread = b.std(axis=0)
    a, b = (x / np.where(spread > 0, spread, 1.0) for x in (a, b))
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)  # [wanted, pool]
    chosen = np.zeros(len(wanted), dtype=np.int64)
    for i in rng.permutation(len(wanted)):
        chosen[i] = int(np.argmin(distance[i]))
        distance[:, chosen[i]] = np.inf
    return chosen
