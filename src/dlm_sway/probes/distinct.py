"""Inputs that are given twice are one input: counting them again would make every interval too narrow."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from dlm_sway.probes.inputs import shown

T = TypeVar("T")

TWICE = "given before"


def distinct(items: Iterable[T], key: Callable[[T], str]) -> tuple[list[T], list[dict[str, str]]]:
    """Return the items whose text differs from all before, in their order, and evidence of those dropped.

    Args:
        items: what was given.
        key: the text of an item; white space is no difference.
    """
    kept: dict[Hashable, T] = {}
    dropped: list[dict[str, str]] = []
    for item in items:
        text = " ".join(key(item).split())
        if text in kept:
            dropped.append({"label": shown(text), "why": TWICE})
        else:
            kept[text] = item
    return list(kept.values()), dropped
