"""How probes take texts: from a spec, from the built-in prompts, and as stratified subsets for the nulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeAlias, TypeVar

import numpy as np
from pydantic import BeforeValidator

from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.ask import TextItem

T = TypeVar("T")
_OPENING = 240  # characters of a text that are given where it has no prompt
_WORDS_PER_TOKEN = 0.7  # English BPE text; only sizes budgets, never a statistic


def _coerce(raw: Any) -> Any:
    """Accept a string (a text), or a mapping with `text` or `prompt`/`completion`."""
    if not isinstance(raw, list | tuple):
        return raw
    return [_item(i, entry) for i, entry in enumerate(raw)]


def _item(i: int, entry: Any) -> Any:
    if isinstance(entry, TextItem):
        return entry
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, dict):
        return entry
    fields = dict(entry)
    if "text" in fields:
        fields["completion"] = fields.pop("text")
    return {"prompt": "", "cluster": str(i), "label": str(i), **fields}


Items: TypeAlias = Annotated[tuple[TextItem, ...], BeforeValidator(_coerce)]
"""A tuple of texts; strings and mappings are accepted in a spec."""


def tokens_about(item: TextItem) -> int:
    """Return about how many tokens an item has, from its words: enough to size a budget before any model is there."""
    given = item.prompt + "".join(f" {turn.get('content') or ''}" for turn in item.messages)
    words = len((given + " " + item.completion).split())
    return max(1, round(words / _WORDS_PER_TOKEN), len(given + item.completion) // 6)


def subset(items: Sequence[TextItem], *, tokens: int, cut: int, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return items whose first `cut` tokens add up to about `tokens`, balanced over strata, in a random order.

    Nulls are expensive, so they see a part of the inputs. The choice depends on the items and the seed alone, never
    on a score, so the adapter and its nulls stay exchangeable.
    """
    order = reading_order(items, [item.stratum for item in items], rng=rng)
    chosen: list[TextItem] = []
    spent = 0
    for item in order:
        prompt = tokens_about(replace(item, completion="")) if item.prompt or item.messages else 0
        cost = prompt + min(cut, tokens_about(TextItem("", item.completion, "", "")))
        if chosen and spent + cost > tokens:
            break
        chosen.append(item)
        spent += cost
    return tuple(chosen)


def reading_order(items: Sequence[T], strata: Sequence[str], *, rng: np.random.Generator) -> tuple[T, ...]:
    """Return items in a random order that takes from each stratum in turn, so that any beginning stands for the whole.

    What ends early must not depend on how a file is sorted.
    """
    parts: dict[str, list[T]] = {}
    for i in rng.permutation(len(items)):
        parts.setdefault(strata[i], []).append(items[i])
    longest = max((len(part) for part in parts.values()), default=0)
    return tuple(part[i] for i in range(longest) for part in parts.values() if i < len(part))


def clusters(items: Sequence[TextItem]) -> list[str]:
    """Return the cluster of each item; a text that is given again is in that of its first, since it adds nothing."""
    first: dict[str, str] = {}
    return [first.setdefault(words_of(item), item.cluster) for item in items]


def words_of(item: TextItem) -> str:
    """Return all that an item says: two of the same words are one text, and a reply to another question is another."""
    # Turn by turn, since within a mapping's repr a line break is no blank.
    turns = "\n".join(f"{key}: {value}" for turn in item.messages for key, value in sorted(turn.items()))
    return " ".join(f"{item.prompt}\n{item.completion}\n{turns}".split())


def opening(item: TextItem) -> str:
    """Return what a model is given to continue: the prompt, else the last turn, else the beginning of the text."""
    if item.prompt:
        return item.prompt
    if item.messages:
        return str(item.messages[-1].get("content") or "")
    text = item.completion
    return text if len(text) <= _OPENING else text[:_OPENING].rpartition(" ")[0] or text[:_OPENING]


def require_unseen(items: Sequence[TextItem], held_out: Sequence[TextItem]) -> None:
    """Return if no held-out item says the same as one of the items, blanks apart.

    Raises:
        BadInputError: some are; one of them is shown.
    """
    trained = {words_of(item) for item in items}
    if shared := {words_of(item): item for item in held_out if words_of(item) in trained}:
        one = shared[min(shared)].completion[:60]
        raise BadInputError(
            f"{len(shared)} held-out items are also in the training data, such as {one!r}",
            remedy="hold out items that the fine-tune has not seen",
        )


def shown(text: str, *, limit: int = 160) -> str:
    """Return the beginning of a text on one line, for evidence."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
