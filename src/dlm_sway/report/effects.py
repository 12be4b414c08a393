"""The numbers behind a claim, for pictures: its effect, its interval, what it had to reach, its nulls."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from dlm_sway.core.result import Interval, ProbeResult, Question, Verdict
from dlm_sway.report.evidence import Null, number
from dlm_sway.report.text import clean

Side: TypeAlias = Literal["minimum", "margin"]

_NUMBER: Final = r"([-+]?\d[\d.,]*(?:e[-+]?\d+)?)"
_SAID: Final = re.compile(rf"\b(margin|minimum|at most)(?: of)? {_NUMBER}(%?)")
_LOSS: Final = re.compile(r"\b(?:lost|loss|losses|harm|harmed|at most)\b")
_FLOOR: Final = re.compile(rf"\b10 x {_NUMBER}")
_SAME: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Bar:
    """What the effect had to reach (`minimum`) or to stay inside (`margin`), in the effect's unit.

    Attributes:
        side: which of the two.
        value: where it lies.
        both: whether a margin counts on both sides of zero: so unless the effect is a loss, whose margin is above it.
    """

    side: Side
    value: float
    both: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """The numbers of one claim, finite where they are not open.

    Attributes:
        estimate: the effect.
        low: lower end of the interval; None when open or missing.
        high: upper end; the same.
        unit: of all of them.
        bar: what was declared beforehand, or None.
        null: the null draws in the effect's unit, or None.
    """

    estimate: float
    low: float | None
    high: float | None
    unit: str
    bar: Bar | None
    null: Null | None


def claims_of(probe: ProbeResult) -> dict[str, Question]:
    """Return the claims that a probe's evidence carries; those that do not read are passed over."""
    raw = probe.evidence.get("claims")
    if not isinstance(raw, Mapping):
        return {}
    found = {str(name): _question(claim) for name, claim in raw.items() if isinstance(claim, Mapping)}
    return {name: claim for name, claim in found.items() if claim is not None}


def effect_of(claim: str, question: Question, probe: ProbeResult | None, nulls: Sequence[Null] = ()) -> Effect | None:
    """Return the numbers of a claim, or None when it has no effect.

    Args:
        claim: its key.
        question: its answer.
        probe: where it comes from, or None.
        nulls: the null tests of that probe.
    """
    estimate = number(question.effect)
    if estimate is None:
        return None
    low, high = question.interval or (-math.inf, math.inf)
    bare = Effect(
        estimate, number(low), number(high), clean(question.unit or ""), _bar(claim, question, probe), null=None
    )
    null = _null_of(claim, question, nulls)
    return bare if null is None else replace(bare, null=_in_unit_of(bare, null))


def _question(raw: Mapping[str, Any]) -> Question | None:
    try:
        verdict = Verdict(raw.get("verdict", ""))
    except ValueError:
        return None
    null, unit = raw.get("null"), raw.get("unit")
    return Question(
        verdict=verdict,
        effect=number(raw.get("effect")),
        unit=None if unit is None else str(unit),
        interval=_interval(raw.get("interval")),
        p=number(raw.get("p")),
        null=None if null is None else str(null),
        message=str(raw.get("message") or ""),
    )


def _interval(raw: object) -> Interval | None:
    """Return both ends; JSON has no infinity, so an end that is null there is open."""
    if not isinstance(raw, list | tuple) or len(raw) != 2:  # noqa: PLR2004 (an interval has two ends)
        return None
    low, high = number(raw[0]), number(raw[1])
    if low is None and high is None:
        return None
    return (-math.inf if low is None else low, math.inf if high is None else high)


def _bar(claim: str, question: Question, probe: ProbeResult | None) -> Bar | None:
    """Return the declared minimum or margin: from the evidence where it stands there, else as the claim's words say."""
    said = " ".join((claim.replace("_", " "), question.unit or "", question.null or ""))
    for side, value in (*_declared(claim, question, probe), *_worded(question)):
        margin = side != "minimum"
        return Bar("margin" if margin else "minimum", value, both=margin and not _LOSS.search(said))
    floor = _FLOOR.search(question.null or "")
    least = _parsed(floor[1]) if floor else None
    return None if least is None else Bar("minimum", 10 * least)


def _declared(claim: str, question: Question, probe: ProbeResult | None) -> Iterator[tuple[str, float]]:
    evidence = probe.evidence if probe else {}
    for side in ("minimum", "margin"):
        declared = evidence.get(side)
        named = isinstance(declared, Mapping)
        value = number(declared.get(claim) if isinstance(declared, Mapping) else declared)
        if value is not None and (named or question.unit == evidence.get("unit")):
            yield side, value


def _worded(question: Question) -> Iterator[tuple[str, float]]:
    for text in (question.null or "", question.message):
        if (said := _SAID.search(text)) and (value := _parsed(said[2])) is not None:
            yield said[1], value / 100 if said[3] else value


def _parsed(text: str) -> float | None:
    try:
        return number(float(text.rstrip(".,").replace(",", "")))
    except ValueError:
        return None


def _null_of(claim: str, question: Question, nulls: Sequence[Null]) -> Null | None:
    """Return the null test of a claim: one under its name, else the one at the top if the claim has a p-value."""
    own = [null for null in nulls if claim in null.path.split(".")]
    top = [null for null in nulls if not null.path]
    found = own or (top if question.p is not None else [])
    return found[0] if found else None


def _in_unit_of(effect: Effect, null: Null) -> Null | None:
    """Return the draws in the effect's unit, or None when they are in another.

    A ratio to the median draw has the draws divided by it. Otherwise the draws say their unit, or the statistic, which
    the nulls may have seen a part of the inputs for, has to be of the effect's size to be of its unit.
    """
    if null.median > 0 and math.isclose(null.real / null.median, effect.estimate, rel_tol=_SAME):
        scaled = tuple(draw / null.median for draw in null.draws)
        return replace(null, real=null.real / null.median, draws=scaled, median=1.0)
    if null.unit:
        return null if null.unit == effect.unit else None
    apart = abs(null.real - effect.estimate)
    return null if apart <= max(abs(null.real), abs(effect.estimate)) / 2 else None
