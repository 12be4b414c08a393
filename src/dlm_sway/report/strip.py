"""A strip plot in text: where an adapter stands among adapters that learned nothing.

Each line is one adapter on a common axis: dots for its null draws, a large mark for itself. In multiples of its own
median draw, adapters of different sizes share an axis.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from dlm_sway.core.result import ProbeResult
from dlm_sway.report.numbers import figure
from dlm_sway.suite.result import CheckResult

_LOG_FROM: Final = 30.0  # a wider range leaves a linear axis with two clumps at its ends
_MIN_WIDTH: Final = 20
_MANY: Final = 4
_UNICODE: Final = ("·", "•", "●", "◆", "─", "┴")
_ASCII: Final = (".", "o", "O", "X", "-", "+")


@dataclass(frozen=True, slots=True)
class Strip:
    """One line of the plot: a name, the null draws, and the real value."""

    name: str
    nulls: tuple[float, ...]
    real: float


def learned_strip(name: str, result: CheckResult) -> Strip | None:
    """Return the statistic behind `learned` with its draws, or None where the result does not carry them.

    Read from the first probe, `delta_kl` before others, whose evidence has `null_draws` and a `statistic` (else the
    probe's `raw`).
    """
    probes = sorted(result.probes, key=lambda probe: probe.kind != "delta_kl")
    return next((strip for probe in probes if (strip := _strip_of(name, probe)) is not None), None)


def multiples(strips: Sequence[Strip]) -> tuple[Strip, ...] | None:
    """Return every strip in multiples of its own median draw; None where a value is not positive."""
    if any(min(*strip.nulls, strip.real) <= 0 for strip in strips):
        return None
    return tuple(_divided(strip, statistics.median(strip.nulls)) for strip in strips)


def plot(strips: Sequence[Strip], *, width: int, suffix: str = "", ascii_only: bool = False) -> tuple[str, ...]:
    """Return the lines of the plot, axis and tick labels last.

    Args:
        strips: one line each, in order; at least one.
        width: characters a line may have; an axis is never shorter than 20.
        suffix: stands behind each real value at the right, such as `x`.
        ascii_only: use marks that any encoding has.
    """
    marks = _ASCII if ascii_only else _UNICODE
    tails = [figure(strip.real) + suffix for strip in strips]
    left = max(len(strip.name) for strip in strips) + 2
    across = max(width - left - max(map(len, tails)) - 2, _MIN_WIDTH)
    place, ticks = _axis([v for strip in strips for v in (*strip.nulls, strip.real)], across)
    drawn = [_drawn(strip, place, across, marks) for strip in strips]
    lines = [f"{s.name:<{left}}{cells}  {tail}" for s, cells, tail in zip(strips, drawn, tails, strict=True)]
    rule, labels = _ruler(ticks, place, across, marks)
    return (*lines, " " * left + rule, (" " * left + labels).rstrip())


def legend(*, ascii_only: bool = False) -> str:
    """Return what the marks mean."""
    one, few, many, real, *_ = _ASCII if ascii_only else _UNICODE
    return f"{one} one null draw, {few} two or three, {many} more, {real} the adapter"


def _strip_of(name: str, probe: ProbeResult) -> Strip | None:
    listed = probe.evidence.get("null_draws")
    real = probe.evidence.get("statistic", probe.raw)
    if not isinstance(listed, list | tuple) or not _is_finite(real):
        return None
    nulls = tuple(float(v) for v in listed if _is_finite(v))
    return Strip(name, nulls, float(real)) if nulls else None


def _divided(strip: Strip, unit: float) -> Strip:
    return Strip(strip.name, tuple(v / unit for v in strip.nulls), strip.real / unit)


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _axis(values: Sequence[float], across: int) -> tuple[Callable[[float], int], list[float]]:
    """Return the column of a value, and where the ticks stand: linear, or logarithmic over a wide positive range."""
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG_FROM
    scale: Callable[[float], float] = math.log10 if log else float
    start, end = (scale(low), scale(high)) if log else (min(0.0, low), high)
    span = end - start or 1.0

    def place(value: float) -> int:
        return round((scale(value) - start) / span * (across - 1))

    if log:
        ticks = [10.0**k for k in range(math.ceil(start), math.floor(end) + 1)]
    else:
        step = _nice(max(span / 4, sys.float_info.min))  # a quarter of the smallest float is zero
        ticks = [k * step for k in range(math.ceil(start / step), math.floor((start + span) / step) + 1)]
    return place, ticks


def _nice(step: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return max(m * power for m in (1, 2, 5) if m * power <= step * (1 + 1e-9))


def _drawn(strip: Strip, place: Callable[[float], int], across: int, marks: Sequence[str]) -> str:
    one, few, many, real, *_ = marks
    cells = [" "] * across
    for column, count in Counter(map(place, strip.nulls)).items():
        cells[column] = one if count == 1 else few if count < _MANY else many
    cells[place(strip.real)] = real
    return "".join(cells)


def _ruler(ticks: Sequence[float], place: Callable[[float], int], across: int, marks: Sequence[str]) -> tuple[str, str]:
    rule, labels = [marks[4]] * across, [" "] * across
    free = 0
    for tick in ticks:
        rule[place(tick)] = marks[5]
        text = f"{tick:g}"
        start = min(max(place(tick) - len(text) // 2, 0), across - len(text))
        if start >= free:
            labels[start : start + len(text)] = text
            free = start + len(text) + 1
    return "".join(rule), "".join(labels)
