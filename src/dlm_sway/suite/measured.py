"""Reads from a result what its claims are made of, item by item; what is no such record is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from dlm_sway.core.result import Interval, ProbeResult, Question, Verdict
from dlm_sway.probes.claims import Better

F64: TypeAlias = npt.NDArray[np.float64]
_LARGEST: Final = 1e60  # no log-prob is near it, and no sum or square of such numbers overflows


@dataclass(frozen=True, slots=True)
class Row:
    """An item as a claim read it: its value a unit of weight, that weight, and what it varies together with."""

    value: float
    weight: int
    cluster: str


@dataclass(frozen=True, slots=True)
class Series:
    """A claim with its items.

    Attributes:
        unit: of the values.
        better: which way is better.
        minimum: the smallest difference that matters.
        n_items: items that the claim was made of; `rows` may hold fewer.
        rows: by the name that the item has in every result.
    """

    unit: str
    better: Better
    minimum: float | None
    n_items: int
    rows: Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Shared:
    """Items that several results have read to the same length.

    Attributes:
        totals: one float64[n] a result, a sum over each item.
        weight: int64[n].
        clusters: n names.
    """

    totals: tuple[F64, ...]
    weight: npt.NDArray[np.int64]
    clusters: list[str]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.clusters)


def series_of(probe: ProbeResult) -> dict[str, Series]:
    """Return the claims of a probe that come with their items, by name."""
    meanings = probe.evidence.get("paired")
    rows = probe.evidence.get("per_item")
    if not isinstance(meanings, Mapping):
        return {}
    listed = rows if isinstance(rows, Sequence) and not isinstance(rows, str) else ()
    return {str(name): _series(str(name), m, listed) for name, m in meanings.items() if isinstance(m, Mapping)}


def claims_of(probe: ProbeResult) -> dict[str, Question]:
    """Return the claims that a probe says, with their verdicts; one that does not read is left out."""
    claims = probe.evidence.get("claims")
    found: dict[str, Question] = {}
    for name, raw in claims.items() if isinstance(claims, Mapping) else ():
        try:
            found[str(name)] = Question.model_validate(raw)
        except ValueError:
            continue
    return found


def claimed_verdicts(probe: ProbeResult) -> list[Verdict]:
    """Return the verdicts of a probe's claims, also of one with a number that JSON cannot hold."""
    claims = probe.evidence.get("claims")
    raw = claims.values() if isinstance(claims, Mapping) else ()
    said = [claim.get("verdict") for claim in raw if isinstance(claim, Mapping)]
    return [Verdict(verdict) for verdict in said if isinstance(verdict, str) and verdict in set(Verdict)]


def questions_of(probe: ProbeResult) -> dict[str, Question]:
    """Return the claims of a probe with their verdicts; a probe that says none is one claim itself."""
    unit = probe.evidence.get("unit")
    whole = Question(
        verdict=probe.verdict,
        effect=probe.raw,
        unit=unit if isinstance(unit, str) else None,
        interval=probe.ci_95,
        message=probe.message,
    )
    return claims_of(probe) or {probe.name: whole}


def ends_of(question: Question) -> tuple[float, Interval] | None:
    """Return effect and interval of a claim, where it has both and they are numbers."""
    effect, ends = question.effect, question.interval
    if question.verdict in (Verdict.ERROR, Verdict.SKIP) or effect is None or ends is None:
        return None
    return (effect, ends) if all(_usable(x) for x in (effect, *ends)) else None


def shared(series: Sequence[Series]) -> Shared:
    """Return the items that all of them have, in the order of the first."""
    first, *others = (s.rows for s in series)
    names = [n for n, row in first.items() if all(n in o and o[n].weight == row.weight for o in others)]
    weight = np.array([first[n].weight for n in names], dtype=np.int64)
    totals = tuple(np.array([s.rows[n].value for n in names], dtype=np.float64) * weight for s in series)
    return Shared(totals, weight, [first[n].cluster for n in names])


def _series(name: str, meaning: Mapping[str, Any], rows: Sequence[Any]) -> Series:
    found: dict[str, Row] = {}
    for raw in rows:
        if isinstance(raw, Mapping) and raw.get("claim") == name and (row := _row(raw)) is not None:
            found.setdefault(str(raw["id"]), row)
    better, minimum, n_items = meaning.get("better"), meaning.get("minimum"), meaning.get("n_items")
    way: Better = better if better in ("higher", "lower") else None
    return Series(
        unit=str(meaning.get("unit") or ""),
        better=way,
        minimum=float(minimum) if _usable(minimum) and minimum > 0 else None,
        n_items=max(n_items if _whole(n_items) else 0, len(found)),
        rows=found,
    )


def _row(raw: Mapping[str, Any]) -> Row | None:
    value, weight = raw.get("value"), raw.get("tokens")
    if not (_usable(value) and _whole(weight) and 0 < weight < 1 << 40 and isinstance(raw.get("id"), str)):
        return None
    return Row(float(value), weight, str(raw.get("cluster", raw["id"])))


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _usable(value: Any) -> TypeGuard[float]:
    # The comparison alone refuses NaN and infinities, and takes an integer that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
