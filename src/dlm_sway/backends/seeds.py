"""Seeds for backends that write text themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def text_seeds(seed: int, prompts: Sequence[Any]) -> list[int]:
    """Return a seed of 31 bits for each text: its own for each prompt, and for the k-th of several equal ones.

    Behind one seed the same numbers are drawn, so one seed for all prompts would tie their texts to each other.
    """
    return [_seed(seed, prompt, prompts[:i].count(prompt)) for i, prompt in enumerate(prompts)]


def _seed(seed: int, prompt: Any, repeat: int) -> int:
    digest = hashlib.blake2b(repr((seed, prompt, repeat)).encode(errors="replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
