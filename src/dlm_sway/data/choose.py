"""What probes read of the data: items in a random order that is balanced over clusters, and never more than asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.sections import Section, place
from dlm_sway.data.readers import DataItem, items_of
from dlm_sway.engine.ask import TextItem

T = TypeVar("T")


def text_items(sections: Iterable[Section], *, most: int, seed: int = 0) -> tuple[TextItem, ...]:
    """Return what is scored of sections, in their order; at most `most`, drawn cluster by cluster where there are more.

    The draw depends on the content's place and the seed alone, never on a score.
    """
    return tuple(as_text_item(item) for item, _ in _drawn_items(sections, most=most, seed=seed))


def items_by_section(sections: Sequence[Section], *, most: int, seed: int = 0) -> tuple[TextItem, ...]:
    """Return the same texts, as far as they stand in sections of a document, with the section's name as cluster.

    A section is what stands under a heading, or is one of a `.dlm` document; fewer than two are none.
    """
    key = {id(s): s.where if s.by_paragraph else s.part_of for s in sections if s.by_paragraph or s.part_of}
    first: dict[str, Section] = {}
    for section in sections:
        if id(section) in key:
            first.setdefault(key[id(section)], section)
    if len(first) < 2:  # noqa: PLR2004 (nothing to compare with)
        return ()
    names = dict(zip(first, labels(list(first.values())), strict=True))
    found = ((as_text_item(item), s) for item, s in _drawn_items(sections, most=most, seed=seed) if id(s) in key)
    return tuple(replace(item, cluster=names[key[id(s)]]) for item, s in found)


def _drawn_items(sections: Iterable[Section], *, most: int, seed: int) -> list[tuple[DataItem, Section]]:
    pairs = [(item, section) for section in sections for item in items_of(section)]
    return drawn(pairs, [item.cluster for item, _ in pairs], most=most, seed=seed)


def as_text_item(item: DataItem) -> TextItem:
    """Return an item as the engine takes it, labelled `file:line`."""
    return TextItem(item.prompt, item.completion, item.cluster, item.label)


def section_items(sections: Iterable[Section]) -> tuple[TextItem, ...]:
    """Return sections whole, named by their titles: the prose among them, or where there is none what has a prompt."""
    every = list(sections)
    kept = [s for s in every if s.kind == "prose"] or [s for s in every if s.prompt]
    return tuple(TextItem(s.prompt, s.completion, s.where, name) for s, name in zip(kept, labels(kept), strict=True))


def labels(sections: Sequence[Section]) -> list[str]:
    """Return a name for each section: its title, or `file:line` where it has none; the second of a name is told."""
    return unique([s.title or place_label(s) for s in sections])


def place_label(section: Section) -> str:
    """Return `file:line`."""
    return place(Path(section.source).name, section.line, section.nth)


def unique(names: Sequence[str]) -> list[str]:
    """Return the names, with a number behind the second and later ones that are equal."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out


def drawn(values: Sequence[T], clusters: Sequence[str], *, most: int, seed: int) -> list[T]:
    """Return at most `most` values in their order: one of each cluster in a random order, then a second of each."""
    if len(values) <= most:
        return list(values)
    by_cluster: dict[str, list[int]] = {}
    for i in stream(seed, "items").permutation(len(values)):
        by_cluster.setdefault(clusters[int(i)], []).append(int(i))
    rounds = max(map(len, by_cluster.values()))
    order = [places[r] for r in range(rounds) for places in by_cluster.values() if r < len(places)]
    return [values[i] for i in sorted(order[:most])]


def n_clusters(items: Sequence[TextItem]) -> int:
    """Return how many clusters items are of."""
    return int(np.unique([item.cluster for item in items]).size) if items else 0
