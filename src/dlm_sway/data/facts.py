"""Short facts with four options each: what a fine-tune must not make the model unlearn, or too sure of.

320 facts in eight categories, true, timeless and beyond dispute. In the files the right option stands first; here all
options stand in an order that is fixed by the fact's id, and within a category each place holds the right one equally
often. The options of a fact have the same number of words and about the same length.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from dlm_sway.core.determinism import stream
from dlm_sway.data.shipped import damaged, interleaved, json_lines, jsonl_files

N_OPTIONS: Final = 4
_WHAT: Final = "pack of facts"
_FIELDS: Final = ("id", "category", "prompt", "answer")


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement without its last words, and four ways to end it.

    Attributes:
        id: unique name, such as `animals-001`.
        category: what it is about.
        prompt: the beginning, without a trailing space.
        options: four distinct endings without a full stop; one is right.
        answer: index of the right option.
    """

    id: str
    category: str
    prompt: str
    options: tuple[str, ...]
    answer: int


@cache
def facts() -> tuple[Fact, ...]:
    """Return the shipped facts, categories interleaved, in the same order on every machine; any prefix is balanced.

    Raises:
        CannotRunError: a file of the pack is missing or damaged.
    """
    return _read_facts(files("dlm_sway.data").joinpath("corpus", "facts"))


@cache
def facts_hash() -> str:
    """Return the SHA-256 (hex) of the facts in their order, for the provenance of a result."""
    rows = ([fact.id, fact.category, fact.prompt, list(fact.options), fact.answer] for fact in facts())
    canonical = "\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read_facts(folder: Traversable) -> tuple[Fact, ...]:
    """Return the facts of all `*.jsonl` in `folder`, interleaved by category."""
    paths = jsonl_files(folder, what=_WHAT)
    rows = [_checked(row, where=where) for path in paths for where, row in json_lines(path, what=_WHAT)]
    by_category: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_category.setdefault(row["category"], []).append(row)
    found = [fact for name, some in by_category.items() for fact in _shuffled(name, some)]
    return interleaved(found, [fact.category for fact in found])


def _checked(row: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or any(not isinstance(row.get(field), str) for field in _FIELDS):
        raise damaged(f"a fact lacks one of the strings {', '.join(_FIELDS)}", where=where)
    options = row.get("options")
    if not isinstance(options, list) or any(not isinstance(option, str) for option in options):
        raise damaged("the options of a fact are no list of strings", where=where)
    if len(options) != N_OPTIONS or len(set(options)) != N_OPTIONS or row["answer"] not in options:
        raise damaged(f"a fact has not {N_OPTIONS} distinct options with the answer among them", where=where)
    return row


def _shuffled(category: str, rows: list[dict[str, Any]]) -> list[Fact]:
    """Return the facts of one category, the right options dealt out evenly over the places."""
    places = stream(0, "facts", category).permutation(len(rows)) % N_OPTIONS
    return [_fact(row, int(place)) for row, place in zip(rows, places, strict=True)]


def _fact(row: dict[str, Any], place: int) -> Fact:
    wrong = [option for option in row["options"] if option != row["answer"]]
    options = [wrong[i] for i in stream(0, "facts", row["id"]).permutation(len(wrong))]
    options.insert(place, row["answer"])
    return Fact(row["id"], row["category"], row["prompt"], tuple(options), place)
