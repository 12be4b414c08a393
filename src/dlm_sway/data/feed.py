"""What data can feed: lists of plain values by role, such as triples or cases, ready to stand in a spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from dlm_sway.core.sections import Section
from dlm_sway.data.choose import drawn, labels, n_clusters, place_label, text_items, unique
from dlm_sway.data.conversations import replies
from dlm_sway.data.readers import items_of
from dlm_sway.data.requests import requests_of
from dlm_sway.data.rewrite import rewritten
from dlm_sway.data.splits import Split
from dlm_sway.engine.ask import TextItem

_PARAPHRASES: Final = 3
_SECTION_CHARS: Final = 200  # two halves of some 20 tokens
_LONG_GOLD: Final = 600  # characters beyond which an answer is an essay, and no fact that words could repeat
_MOST_ANY: Final = 10_000


@dataclass(frozen=True)
class Feed:
    """A split as lists of values for specs; each is a pure function of the split, the sizes and the seed.

    Attributes:
        split: both sides of the line.
        scale: shrinks every list, to fit a budget.
        seed: of what is drawn where there is more than is taken.
    """

    split: Split
    scale: float = 1.0
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)

    def size(self, role: str) -> int:
        """Return how many values of a role are taken at most."""
        return max(LEAST.get(role, FEWEST), round(self.sizes[role] * self.scale))

    def values(self, role: str) -> list[Any]:
        """Return the values of a role; empty where the data have none."""
        found: list[Any] = getattr(self, role)
        return found

    @cached_property
    def trained_items(self) -> tuple[TextItem, ...]:
        """What was trained on, as the engine takes it."""
        return text_items(self.split.trained, most=self.size("trained"), seed=self.seed)

    @cached_property
    def held_out_items(self) -> tuple[TextItem, ...]:
        """What was held out, as the engine takes it."""
        return text_items(self.split.held_out, most=self.size("held_out"), seed=self.seed)

    @cached_property
    def trained(self) -> list[dict[str, str]]:
        """Texts that were trained on."""
        return _as_values(self.trained_items, self._cluster_names)

    @cached_property
    def held_out(self) -> list[dict[str, str]]:
        """Texts that were held out."""
        return _as_values(self.held_out_items, self._cluster_names)

    @cached_property
    def _cluster_names(self) -> dict[str, str]:
        return _named({item.cluster for item in (*self.trained_items, *self.held_out_items)})

    @cached_property
    def unseen(self) -> list[dict[str, str]]:
        """Held-out texts, and what was trained on where nothing was held out."""
        return self.held_out or self.trained

    @cached_property
    def few(self) -> list[dict[str, str]]:
        """Some of `unseen`, for probes that read each at many lengths or scales."""
        return self.unseen[: self.size("few")]

    @cached_property
    def sections(self) -> list[dict[str, str]]:
        """Prose long enough to have two halves, by its title."""
        found = [s for s in self.split.trained if s.kind == "prose" and len(s.completion) >= _SECTION_CHARS]
        kept = drawn(found, [s.id for s in found], most=self.size("sections"), seed=self.seed)
        return [{"text": s.completion, "label": label} for s, label in zip(kept, labels(kept), strict=True)]

    @cached_property
    def triples(self) -> list[dict[str, str]]:
        """Preferences, held-out ones where there are enough."""
        found = [s for s in self._side("preference") if s.kind == "preference"]
        return [
            {"prompt": s.prompt, "chosen": s.completion, "rejected": s.rejected, "label": place_label(s)}
            for s in drawn(found, [s.cluster or s.where for s in found], most=self.size("triples"), seed=self.seed)
        ]

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        """Taught questions in the trained words, each also in others."""
        return [
            {"prompt": s.prompt, "gold": s.completion.strip(), "paraphrases": list(words[:_PARAPHRASES])}
            for s, words in self._taught
        ]

    @cached_property
    def fresh_cases(self) -> list[dict[str, Any]]:
        """The same, where anything was held out never in the trained words."""
        if not self.split.held_out:
            return self.cases
        pairs = [(s, self._untrained(words)) for s, words in self._taught]
        return [
            {"prompt": words[0], "gold": s.completion.strip(), "paraphrases": list(words[1 : 1 + _PARAPHRASES])}
            for s, words in pairs
            if len(words) > _PARAPHRASES - 1
        ]

    @cached_property
    def _taught(self) -> list[tuple[Section, tuple[str, ...]]]:
        found = [s for s in self.split.trained if s.kind in ("instruction", "chat") and _is_short(s)]
        first = {s.prompt: s for s in reversed(found)}  # the same question twice is one case
        pairs = [(s, words) for s in reversed(first.values()) if len(words := rewritten(s.prompt)) > 1]
        return drawn(pairs, [s.cluster or s.where for s, _ in pairs], most=self.size("cases"), seed=self.seed)

    @cached_property
    def tool_cases(self) -> list[dict[str, Any]]:
        """Requests with tools, and the call that is right where it is known.

        Held-out ones where anything is; where they are too few to decide, trained ones in other words join them.
        """
        taught = [(s, case) for s in self.split.trained for case in _tool_case(s)]
        if not self.split.held_out:
            return _with_clusters(self._drawn_cases(taught, self.size("tool_cases")))
        held = [(s, case) for s in self.split.newly_asked for case in _tool_case(s)]
        cases = self._drawn_cases(held, self.size("tool_cases"))
        if (missing := LEAST["tool_cases"] - _n_apart(_with_clusters(cases))) > 0:
            reworded = [(s, new) for s, case in taught for new in self._reworded(case)]
            cases += self._drawn_cases(reworded, missing)
        return _with_clusters(cases)

    def _reworded(self, case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The same request in words that were not trained on; what stands before it stays."""
        prompt = case["prompt"]
        before, said = ([], prompt) if isinstance(prompt, str) else (prompt[:-1], prompt[-1]["content"])
        for words in self._untrained(rewritten(said))[:1]:
            yield {**case, "prompt": [*before, {**prompt[-1], "content": words}] if before else words}

    def _untrained(self, wordings: Iterable[str]) -> tuple[str, ...]:
        return tuple(words for words in wordings if words.strip() not in self._trained_requests)

    @cached_property
    def _trained_requests(self) -> frozenset[str]:
        return requests_of(self.split.trained)

    def _drawn_cases(
        self, found: Sequence[tuple[Section, dict[str, Any]]], most: int
    ) -> list[tuple[Section, dict[str, Any]]]:
        return drawn(found, [s.cluster or s.where for s, _ in found], most=most, seed=self.seed)

    @cached_property
    def reference(self) -> list[str]:
        """Text in the style that was meant: what the fine-tune was trained to write."""
        return [item.completion for item in self.trained_items[: self.size("reference")]]

    @cached_property
    def requests(self) -> list[str]:
        """Prompts that were held out; none where nothing was, since a trained prompt shows recital too."""
        new = {item.prompt for section in self.split.newly_asked for item in items_of(section)}
        found = dict.fromkeys(i.prompt for i in self.held_out_items if i.prompt and i.prompt in new)
        return list(found)[: self.size("requests")] if len(found) >= FEWEST else []

    @cached_property
    def asked(self) -> list[str]:
        """Prompts for a probe that has none of its own: held-out ones, trained ones only where nothing is held out."""
        if self.requests or self.split.held_out:
            return self.requests
        found = dict.fromkeys(i.prompt for i in self.trained_items if i.prompt)
        return list(found)[: self.size("asked")]

    def _side(self, kind: str) -> tuple[Section, ...]:
        """Return held-out sections of a kind where there are enough, so that no prompt is one that was trained on."""
        held = [s for s in self.split.newly_asked if s.kind == kind]
        return tuple(held) if len(held) >= FEWEST else tuple(s for s in self.split.trained if s.kind == kind)

    def clusters(self, role: str) -> int:
        """Return how many independent units a role has."""
        if role == "tool_cases":
            return _n_apart(self.tool_cases)
        items = {"trained": self.trained_items, "held_out": self.held_out_items}.get(role)
        return len(self.values(role)) if items is None else n_clusters(items)


FEWEST: Final = 5
"""Units below which nothing can be decided: an exact sign-flip test of fewer cannot reach 5 %."""

LEAST: Final[Mapping[str, int]] = {"tool_cases": 29}
"""Values of a role below which its probe cannot pass: 29 calls without an invented name exclude 10 % of them."""

SIZES: Final[Mapping[str, int]] = {
    "trained": 128,
    "held_out": 128,
    "few": 12,
    "unseen": 64,
    "sections": 24,
    "triples": 64,
    "cases": 24,
    "fresh_cases": 24,
    "tool_cases": 60,
    "reference": 64,
    "requests": 24,
    "asked": 12,
}
"""Values of each role at full size: enough for the effects that probes ask for, and seldom more.

128 texts show a gain of 0.065 nat/token, near the smallest that counts, where clusters differ by 0.2.
"""


def _as_values(items: Sequence[TextItem], called_by: Mapping[str, str]) -> list[dict[str, str]]:
    """Return texts as a suite writes them; a cluster is named only where several share it."""
    names = [item.cluster for item in items]
    called = unique([item.label for item in items])
    out = []
    for item, label in zip(items, called, strict=True):
        text = {"prompt": item.prompt, "completion": item.completion} if item.prompt else {"text": item.completion}
        shared = {"cluster": called_by[item.cluster]} if names.count(item.cluster) > 1 else {}
        out.append({**text, "label": label, **shared})
    return out


def _with_clusters(cases: Sequence[tuple[Section, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return cases with the cluster that their data name, where several share it."""
    names = [s.cluster for s, _ in cases]
    return [
        case if name is None or names.count(name) == 1 else {**case, "cluster": name}
        for name, (_, case) in zip(names, cases, strict=True)
    ]


def _n_apart(cases: Sequence[Mapping[str, Any]]) -> int:
    """Return how many cases vary on their own: those of a named cluster are one."""
    names = [case.get("cluster") for case in cases]
    return len({name for name in names if name is not None}) + names.count(None)


def _named(clusters: Iterable[str]) -> dict[str, str]:
    """Return a name for each cluster: without the folders of the file it stands in, where that tells all apart."""
    short = {cluster: cluster.rsplit("/", 1)[-1] for cluster in clusters}
    apart = all(short.values()) and len(set(short.values())) == len(short)
    return short if apart else {cluster: cluster for cluster in short}


def _is_short(section: Section) -> bool:
    one_turn = not section.messages or [m["role"] for m in section.messages] == ["user", "assistant"]
    return one_turn and len(section.completion) <= _LONG_GOLD and bool(section.prompt.strip())


def _tool_case(section: Section) -> Iterator[dict[str, Any]]:
    """The request of a tool section, before its first reply; the reply's only call is the one that is right."""
    if not section.tools:
        return
    first = replies(section.messages)[0]
    asked = [{k: v for k, v in m.items() if k != "weight"} for m in section.messages[:first]]
    if not asked or asked[-1]["role"] != "user" or any(m.get("tool_calls") for m in asked):
        return
    calls: Sequence[Any] = section.messages[first].get("tool_calls") or ()
    plain = len(asked) == 1
    case: dict[str, Any] = {
        "prompt": asked[0]["content"] if plain else asked,
        "tools": [dict(t) for t in section.tools],
    }
    if len(calls) == 1:
        case["gold"] = {"name": calls[0]["name"], "arguments": dict(calls[0]["arguments"])}
    yield case
