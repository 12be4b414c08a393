"""Control texts of the same form as the user's: what a gain on the target is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.form import nearest

_MOST = 48
_FEWEST = 24


def matched_controls(items: Sequence[TextItem], *, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return control items of the items' form and other content, at most one a passage of the shipped corpus.

    Each item drawn at random gets the passage nearest to it in form (`form.features`) among those still free. Passages
    are cut, at word boundaries, to the item's lengths of prompt and completion in characters: position in the text
    drives log-prob per token. No model is needed, so the match cannot lean on a score.
    """
    passages = control_passages()
    count = min(_MOST, max(len(items), _FEWEST), len(passages))
    drawn = rng.choice(len(items), size=count, replace=count > len(items))
    wanted = [items[i].prompt + items[i].completion for i in drawn]
    chosen = nearest(wanted, [p.text for p in passages], rng=rng)
    return tuple(
        _cut(passages[c].text, items[i], passages[c].id, passages[c].register)
        for c, i in zip(chosen, drawn, strict=True)
    )


def _cut(text: str, like: TextItem, name: str, register: str) -> TextItem:
    # A prompt longer than the passage must leave something to score.
    split = _boundary(text, min(len(like.prompt), len(text) // 2)) if like.prompt else 0
    wanted = split + max(40, len(like.completion))
    end = _boundary(text, wanted)
    if not text[split:end].strip():  # no boundary between the two, as in a table or a script without spaces
        end = min(wanted, len(text))
    return TextItem(text[:split], text[split:end], name, name, register)


def _boundary(text: str, at: int) -> int:
    """Return the word boundary at or before `at` (never 0), or the end of the text."""
    if at >= len(text):
        return len(text)
    space = text.rfind(" ", 1, at + 1)
    return space if space > 0 else at
