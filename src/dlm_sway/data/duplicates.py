"""Groups of texts that are the same or nearly so: MinHash finds candidates, the exact Jaccard index decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from dlm_sway.core.extras import needs_extra

ALIKE: Final = 0.7  # Jaccard index of shingles from which two texts count as one
_WORD: Final = re.compile(r"\w+")
_SHINGLE_WORDS, _SHINGLE_CHARS, _FEW_WORDS = 3, 5, 6
_PERMUTATIONS: Final = 128
_SEED: Final = 1


def shingles(text: str) -> frozenset[str]:
    """Return the runs of 3 words of a text; of characters where it has few words, as in scripts without blanks."""
    words = _WORD.findall(text.lower())
    if len(words) >= _FEW_WORDS:
        return frozenset(" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(len(words) - _SHINGLE_WORDS + 1))
    plain = " ".join(words) or text.strip()
    return frozenset(plain[i : i + _SHINGLE_CHARS] for i in range(max(1, len(plain) - _SHINGLE_CHARS + 1)))


def can_find_alike() -> bool:
    """Return whether near-duplicates can be found here."""
    return find_spec("datasketch") is not None


def groups_of_alike(texts: Sequence[str], *, alike: float = ALIKE) -> list[int]:
    """Return a group number for each text: texts of one group are connected by likeness of at least `alike`.

    The number is the place of the group's first text. Likeness is the Jaccard index of shingles (Broder 1997).

    Raises:
        MissingExtraError: datasketch is not installed.
    """
    with needs_extra("finding near-duplicates"):
        from datasketch import MinHash, MinHashLSH
    sets = [shingles(text) for text in texts]
    parents = list(range(len(texts)))
    # Candidates are taken from a looser threshold: the exact index below decides, so only recall is at stake.
    index = MinHashLSH(threshold=max(0.1, alike - 0.2), num_perm=_PERMUTATIONS)
    for i, found in enumerate(sets):
        sketch = MinHash(num_perm=_PERMUTATIONS, seed=_SEED)
        sketch.update_batch([s.encode("utf-8", errors="surrogatepass") for s in sorted(found)])
        for j in index.query(sketch):
            if _root(parents, i) != _root(parents, j) and _jaccard(found, sets[j]) >= alike:
                a, b = sorted((_root(parents, i), _root(parents, j)))
                parents[b] = a
        index.insert(i, sketch)
    return [_root(parents, i) for i in range(len(texts))]


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i
