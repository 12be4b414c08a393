"""What tests of several packages share: texts in a small language that a dummy can learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from dlm_sway.core.determinism import stream

Language: TypeAlias = Callable[..., tuple[str, ...]]


@pytest.fixture(scope="session")
def language() -> Language:
    """Return a maker of texts: words of a ring, each mostly followed by its neighbour, so that they can be learned.

    The words are named from the second half of the dummy's vocabulary, which plain text never reaches. Rings with
    another `first` word share nothing; texts of another `seed` are held out of the same language.
    """

    def make(n: int, *, seed: int = 0, first: int = 50, words: int = 12, length: int = 24) -> tuple[str, ...]:
        rng = stream(seed, "language", first)
        texts = []
        for _ in range(n):
            places = [int(rng.integers(words))]
            while len(places) < length:
                places.append((places[-1] + 1) % words if rng.random() < 0.85 else int(rng.integers(words)))
            texts.append(" ".join(f"w{first + place}" for place in places))
        return tuple(texts)

    return make
