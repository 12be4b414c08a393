"""Counter-based randomness: the same words give the same stream on every machine, worker and backend."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*words: int | str) -> np.random.Generator:
    """Return a Philox generator keyed by `words`, such as (run seed, draw index, module name).

    The key is the first 128 bits of a BLAKE2b hash, so neighbouring seeds share nothing and no word can run into
    the next (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
    """
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    raw = text.encode("utf-8", errors="surrogatepass")  # the name of a file may hold bytes that are no UTF-8
    digest = hashlib.blake2b(raw, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
