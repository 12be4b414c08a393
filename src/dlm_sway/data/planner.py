"""From data to the probes that they can feed, sized to be decisive inside a time, and what was left out and why."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel

from dlm_sway.core.errors import SwayError
from dlm_sway.data.cost import START, clock, seconds
from dlm_sway.data.feed import Feed
from dlm_sway.data.kinds import ANY, KINDS, NEVER, Kind
from dlm_sway.data.splits import Split
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import ProbeSpec, build_probe
from dlm_sway.probes.registry import probe_class, probes

_SCALES: Final = (1.0, 0.75, 0.5, 0.35, 0.25)
# The same word means the same data in every spec.
_TEXT_ROLES: Final = {
    "items": "trained",
    "target": "trained",
    "trained": "trained",
    "members": "trained",
    "documents": "trained",
    "texts": "trained",
    "held_out": "held_out",
    "unseen": "held_out",
    "non_members": "held_out",
    "sections": "sections",
    "prompts": "unseen",
}
_WORD_ROLES: Final = {"prompts": "requests", "reference": "reference", "texts": "reference"}
_OWN_ROLES: Final = {("delta_kl", "prompts"): "trained"}  # read with `target_gain`, in the same pass
_FEW: Final = ("prompt_collapse", "adapter_ablation", "multi_turn_coherence_decay")


@dataclass(frozen=True, slots=True)
class Planned:
    """One probe of the suite.

    Attributes:
        kind: of the probe; also its name.
        spec: its own keys.
        roles: which role of the feed each key is filled from.
        why: what it answers.
        power: what its sample can decide.
        view_tokens: about what it costs.
    """

    kind: str
    spec: dict[str, Any]
    roles: dict[str, str]
    why: str
    power: str
    view_tokens: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A probe that is not in the suite, and why."""

    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of an adapter.

    Attributes:
        feed: what the probes read.
        probes: in the order of the suite.
        left_out: the other registered kinds.
        draws: null adapters.
        budget: seconds that were allowed, or None.
        weights: about how many weights the base has, or None where that is not known.
    """

    feed: Feed
    probes: tuple[Planned, ...]
    left_out: tuple[LeftOut, ...]
    draws: int
    budget: float | None
    weights: float | None

    @property
    def seconds(self) -> float:
        """About how long it takes on two CPU cores."""
        return START + sum(seconds(p.view_tokens, self.weights) for p in self.probes)


def plan(
    split: Split,
    *,
    draws: int = 39,
    seed: int = 0,
    budget: float | None = None,
    weights: float | None = None,
    kinds: Sequence[str] | None = None,
    largest: float = 1.0,
) -> Plan:
    """Return the probes that a split can feed, as large as the budget allows.

    Every list shrinks alike until all fits. Where the smallest size does not fit, the last probes in order are left
    out, and say what they would have taken.

    Args:
        split: what was trained on and what was held out.
        draws: null adapters.
        seed: of what is drawn.
        budget: seconds, or None for as long as it takes.
        weights: about how many weights the base has.
        kinds: the kinds to choose from; all that are registered when None.
        largest: share of the full size that no list goes beyond.
    """
    scales = (largest, *(scale for scale in _SCALES if scale < largest))
    found = Plan(Feed(split, seed=seed), (), (), draws, budget, weights)
    for scale in scales:
        feed = Feed(split, scale=scale, seed=seed)
        entries = [_entry(kind, feed, draws) for kind in _ordered(kinds)]
        ready = tuple(e for e in entries if isinstance(e, Planned))
        found = Plan(feed, ready, tuple(e for e in entries if isinstance(e, LeftOut)), draws, budget, weights)
        if budget is None or found.seconds <= budget:
            return found
    short = _shortened(found)
    return _grown(short, split, scales)


def _shortened(plan_: Plan) -> Plan:
    """Return the plan without the last probes, until it fits; the first is always kept."""
    kept, left = list(plan_.probes), list(plan_.left_out)
    while len(kept) > 1 and plan_.budget is not None:
        if Plan(plan_.feed, tuple(kept), (), plan_.draws, None, plan_.weights).seconds <= plan_.budget:
            break
        gone = kept.pop()
        time = clock(seconds(gone.view_tokens, plan_.weights))
        left.append(LeftOut(gone.kind, f"does not fit the budget of {clock(plan_.budget)}: about {time} more"))
    return Plan(plan_.feed, tuple(kept), tuple(left), plan_.draws, plan_.budget, plan_.weights)


def _grown(short: Plan, split: Split, scales: Sequence[float]) -> Plan:
    """Return the plan with the same probes as large as the time that others left allows."""
    for scale in scales:
        feed = Feed(split, scale=scale, seed=short.feed.seed)
        entries = [_entry(p.kind, feed, short.draws) for p in short.probes]
        ready = tuple(e for e in entries if isinstance(e, Planned))
        larger = Plan(feed, ready, short.left_out, short.draws, short.budget, short.weights)
        if short.budget is None or larger.seconds <= short.budget:
            return larger
    return short


def _ordered(kinds: Sequence[str] | None) -> list[str]:
    known = sorted(probes()) if kinds is None else sorted(kinds)
    return sorted(known, key=lambda kind: (KINDS.get(kind, ANY).rank, kind))


def _entry(kind: str, feed: Feed, draws: int) -> Planned | LeftOut:
    if kind in NEVER:
        return LeftOut(kind, NEVER[kind])
    known = KINDS.get(kind, ANY)
    if known.lacking:
        return LeftOut(kind, known.lacking)
    roles = dict(_roles(kind, probe_class(kind).spec_type))
    filled = {key: role for key, role in roles.items() if feed.values(role)}
    if (why := _cannot(kind, known, roles, filled, feed)) is not None:
        return LeftOut(kind, why)
    spec = {key: feed.values(role) for key, role in filled.items()}
    try:
        build_probe({"name": kind, "kind": kind, **spec})
    except SwayError as fault:
        return LeftOut(kind, f"these data do not fit it: {fault.what[:160]}")
    return Planned(kind, spec, filled, known.why, known.power(feed, draws), known.cost(feed, draws))


def _cannot(kind: str, known: Kind, roles: dict[str, str], filled: dict[str, str], feed: Feed) -> str | None:
    """Return why data cannot feed a kind, or None."""
    fields = probe_class(kind).spec_type.model_fields
    own = [key for key, info in fields.items() if info.is_required() and key not in ("name", "kind")]
    if strange := [key for key in own if key not in roles]:
        return f"asks for `{strange[0]}`, which data do not say; add it by hand"
    if empty := [roles[key] for key in own if key not in filled]:
        return _LACKS[empty[0]]
    if known is ANY and not filled and own:
        return "nothing in these data feeds it"
    if known.units is None:
        return None
    n, fitted = feed.clusters(known.units), " at the size that fits" if feed.scale < 1 else ""
    if n >= known.fewest:
        return None
    return f"{_LACKS[known.units]}: it needs at least {known.fewest}, and there are {n}{fitted}"


_LACKS: Final = {
    "trained": "too few texts",
    "held_out": "nothing is held out",
    "unseen": "too few texts",
    "few": "too few texts",
    "sections": "no prose long enough to have two halves",
    "triples": "no preferences in the data",
    "cases": "no short questions with answers in the data",
    "fresh_cases": "no short questions with answers in the data",
    "tool_cases": "no requests with tools in the data",
    "reference": "too few texts",
    "requests": "no held-out prompts that were not trained on",
    "asked": "no prompts in the data, or too few held-out ones that were not trained on",
}


def _roles(kind: str, spec: type[ProbeSpec]) -> Iterator[tuple[str, str]]:
    """Yield the keys of a spec that data can fill, with the role that fills each."""
    for key, info in spec.model_fields.items():
        role = _role(kind, key, _element(info.annotation))
        if role is not None:
            # A probe that has prompts of its own prefers those to trained ones; another takes what there is.
            yield key, "asked" if role == "requests" and info.is_required() else role


def _element(annotation: Any) -> Any:
    """Return what a field that is a tuple holds, or None."""
    origin = getattr(annotation, "__origin__", None)
    args = get_args(annotation)
    if isinstance(annotation, types.UnionType):
        return next((found for part in args if (found := _element(part)) is not None), None)
    return args[0] if origin is tuple and args else None


def _role(kind: str, key: str, element: Any) -> str | None:
    if element is TextItem:
        role = _OWN_ROLES.get((kind, key)) or _TEXT_ROLES.get(key)
        return "few" if role in ("unseen", "trained") and kind in _FEW else role
    if element is str:
        return _WORD_ROLES.get(key)
    if not (isinstance(element, type) and issubclass(element, BaseModel)):
        return None
    fields = element.model_fields.keys()
    if {"prompt", "chosen", "rejected"} <= fields:
        return "triples"
    if {"prompt", "gold", "paraphrases"} <= fields:
        return "fresh_cases" if kind == "adapter_revert" else "cases"
    return "tool_cases" if {"prompt", "tools"} <= fields else None
