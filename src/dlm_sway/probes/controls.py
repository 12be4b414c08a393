"""Control texts of the same form as the user's: what a gain on the target is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import TextItem

_NATURAL = ("prose", "news", "encyclopaedic", "dialogue", "howto")
_MOST = 48


def matched_controls(items: Sequence[TextItem], *, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return control items of the items' form: the same lengths of prompt and completion, other content.

    Passages of the shipped corpus are cut, at word boundaries, to the lengths (in characters) of items drawn at
    random, so that position in the text, which drives log-prob per token, is matched.
    """
    passages = [p for p in control_passages() if p.register in _NATURAL]
    count = min(_MOST, max(len(items), 24), len(passages))
    model = rng.choice(len(items), size=count, replace=count > len(items))
    chosen = rng.permutation(len(passages))[:count]
    return tuple(
        _cut(passages[c].text, items[m], passages[c].id, passages[c].register)
        for c, m in zip(chosen, model, strict=True)
    )


def _cut(text: str, like: TextItem, name: str, register: str) -> TextItem:
    split = _boundary(text, len(like.prompt)) if like.prompt else 0
    end = _boundary(text, split + max(40, len(like.completion)))
    return TextItem(text[:split], text[split:end] or text[split:], name, name, register)


def _boundary(text: str, at: int) -> int:
    """Return the word boundary at or before `at` (never 0), or the end of the text."""
    if at >= len(text):
        return len(text)
    space = text.rfind(" ", 1, at + 1)
    return space if space > 0 else at
