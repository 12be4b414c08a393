"""Numbers as a reader wants them: three digits that mean something, an interval on the same grid as its estimate."""

from __future__ import annotations

import math
from collections.abc import Iterable

_SHARE = "of "
_TINY = 1e-4
_HUGE = 1e6


def figure(value: float, *, like: Iterable[float] = (), signed: bool = False) -> str:
    """Return `value` with as many decimals as give the largest of `value` and `like` three significant digits.

    Args:
        value: any number; NaN and infinities have no figure and give an empty string.
        like: figures printed beside it, so that all of them share their decimals.
        signed: put a plus before positive values, for effects that have a direction.
    """
    if not math.isfinite(value):
        return ""
    largest = max(abs(v) for v in (value, *like) if math.isfinite(v))
    sign = "+" if signed else ""
    if largest and not _TINY <= largest < _HUGE:
        return format(value, f"{sign}.1e")
    digits = min(max(2 - math.floor(math.log10(largest)), 0), 6) if largest else 0
    text = format(value, f"{sign},.{digits}f")
    return text.lstrip("+-") if not text.strip("+-0.,") else text  # no "-0.000"


def effect(value: float | None, unit: str | None, *, like: Iterable[float] = (), signed: bool = False) -> str:
    """Return an effect with its unit, such as `+0.531 nat/token`.

    A count without an interval prints as a count, and a share (its unit begins with `of`) in per cent.
    """
    others = tuple(like)
    if value is None or not math.isfinite(value):
        return ""
    if is_share(unit):
        return f"{_per_cent(value, others, signed=signed)} {unit}"
    count = not others and float(value).is_integer() and abs(value) < _HUGE
    text = (
        format(value, "+,.0f" if signed and value else ",.0f") if count else figure(value, like=others, signed=signed)
    )
    return f"{text} {unit}" if unit else text


def interval(
    ends: tuple[float, float] | None, *, unit: str | None = None, like: Iterable[float] = (), signed: bool = False
) -> str:
    """Return `[low, high]`; an interval open on one side prints as a bound, one open on both as nothing."""
    if ends is None or any(math.isnan(end) for end in ends):
        return ""
    shown = _per_cent if is_share(unit) else _plain
    low, high = (shown(end, (*like, *ends), signed=signed) for end in ends)
    if low and high:
        return f"[{low}, {high}]"
    if low:
        return f"at least {low}"
    return f"at most {high}" if high else ""


def is_share(unit: str | None) -> bool:
    """Return whether an effect in this unit is a share of something, such as `of facts`."""
    return (unit or "").startswith(_SHARE)


def _per_cent(value: float, like: Iterable[float], *, signed: bool) -> str:
    if not math.isfinite(value):
        return ""
    largest = max(abs(100 * v) for v in (value, *like) if math.isfinite(v))
    digits = 1 if largest >= 1 or not largest else 2
    text = format(100 * value, f"{'+' if signed else ''},.{digits}f")
    return f"{text if text.strip('+-0.,') else text.lstrip('+-')}%"


def _plain(value: float, like: Iterable[float], *, signed: bool) -> str:
    return figure(value, like=like, signed=signed)


def p_value(p: float | None) -> str:
    """Return a p-value to two significant digits; an exact rank p-value is never 0, so it prints as it is."""
    return "" if p is None or not math.isfinite(p) else f"{p:.2g}"
