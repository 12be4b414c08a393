"""What a section asks, so that a request that was trained on is known again, whatever reply stands behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from dlm_sway.core.sections import Section
from dlm_sway.data.conversations import as_text, replies


def request_of(section: Section) -> str:
    """Return what a section asks, without blanks at either end; empty for prose, which asks nothing.

    Of a conversation: what the user says before the first reply. A system prompt is no part of it, since all may share
    one.
    """
    if section.kind == "prose":
        return ""
    if section.messages:
        before = section.messages[: replies(section.messages)[0]]
        return "\n".join(as_text(m) for m in before if m["role"] == "user").strip()
    return section.prompt.strip()


def requests_of(sections: Iterable[Section]) -> frozenset[str]:
    """Return all that sections ask."""
    return frozenset(request_of(section) for section in sections) - {""}


def joined_by_request(labels: Sequence[int], sections: Sequence[Section], *, most: float) -> list[int]:
    """Return group numbers in which groups that share a request are one, unless they are over `most` sections together.

    A request that so many share is a frame, such as that of a classifier, and says nothing about what stands in it.
    """
    sizes, parents = Counter(labels), {label: label for label in labels}

    def root(label: int) -> int:
        while parents[label] != label:
            label = parents[label]
        return label

    groups: dict[str, set[int]] = {}
    for label, section in zip(labels, sections, strict=True):
        if request := request_of(section):
            groups.setdefault(request, set()).add(label)
    for found in groups.values():
        roots = {root(label) for label in found}
        if (size := sum(sizes[r] for r in roots)) <= most:
            first = min(roots)
            sizes[first] = size
            parents |= dict.fromkeys(roots, first)
    return [root(label) for label in labels]
