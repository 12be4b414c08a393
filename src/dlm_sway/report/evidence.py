"""What a probe's evidence holds that can be drawn or tabled, read without trusting its shape.

Evidence is free-form JSON that probes of other packages write too, so each part is taken where it has the agreed
form, and left among the plain facts where it has not. Sizes are bounded here, once for all renderers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dlm_sway.report import numbers
from dlm_sway.report.text import clean

Cell: TypeAlias = str | int | float | None

_MAX_CURVES: Final = 8
_MAX_POINTS: Final = 400
_MAX_SIDE: Final = 24
_MAX_LAYERS: Final = 400
_MAX_EXTREMES: Final = 10
_MAX_ROWS: Final = 200
_MAX_COLUMNS: Final = 8
_MAX_TABLES: Final = 8
_MAX_FACTS: Final = 60
_MAX_DRAWS: Final = 999
_MAX_DEPTH: Final = 3
_CELL_WIDTH: Final = 200
_DRAWN: Final = frozenset(
    {"claims", "unit", "null_draws", "curves", "matrix", "layers", "items", "per_item", "dropped"}
)


@dataclass(frozen=True, slots=True)
class Null:
    """A statistic among its null draws.

    Attributes:
        path: where in the evidence it stands, such as `on_target.null`; empty at the top.
        real: the adapter's value on what the nulls saw.
        draws: the nulls' values.
        median: of the draws.
        unit: of all of them; empty where the evidence does not say.
        lam: the scale at which the adapter and the draws were compared.
    """

    path: str
    real: float
    draws: tuple[float, ...]
    median: float
    unit: str = ""
    lam: float = 1.0


@dataclass(frozen=True, slots=True)
class Curve:
    """A value against another, such as gain against the scale of the adapter; `low` and `high` are empty or a band."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    x_label: str
    unit: str
    minimum: float | None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Values by row and column; a value that was no number is None."""

    labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    unit: str
    rows: str
    columns: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One module's value; `layer` is its number where it has one."""

    module: str
    layer: int | None
    value: float
    p: float | None


@dataclass(frozen=True, slots=True)
class Item:
    """One input and its value."""

    label: str
    value: float
    tokens: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Extremes:
    """The items that stand out, largest and smallest value first."""

    path: str
    largest: tuple[Item, ...]
    smallest: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of equal columns; `left_out` counts those over the limit."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of a probe's evidence, in forms that a renderer can show; text is safe to print."""

    nulls: tuple[Null, ...] = ()
    curves: tuple[Curve, ...] = ()
    matrix: Matrix | None = None
    layers: tuple[Layer, ...] = ()
    extremes: tuple[Extremes, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def read_evidence(raw: Mapping[str, Any]) -> Evidence:
    """Return what can be shown of a probe's evidence; whatever has another form than agreed is passed over."""
    levels = list(_levels(raw))
    nulls = [null for path, level in levels if (null := _null(path, level)) is not None]
    extremes = (found for path, level in levels if (found := _extremes(path, level.get("items"))) is not None)
    return Evidence(
        nulls=tuple({(null.real, null.draws): null for null in reversed(nulls)}.values())[::-1],
        curves=_listed(raw.get("curves"), _curve, _MAX_CURVES),
        matrix=_matrix(raw.get("matrix")),
        layers=_listed(raw.get("layers"), _layer, _MAX_LAYERS),
        extremes=tuple(extremes),
        tables=tuple(_tables(levels))[:_MAX_TABLES],
        facts=tuple(_facts(levels))[:_MAX_FACTS],
    )


def number(value: object) -> float | None:
    """Return a finite number, or None for all else, booleans too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer that no float holds
        return None


def words(key: object) -> str:
    """Return a key as words: `null_items` becomes `null items`."""
    return clean(key, limit=80).replace("_", " ").strip()


def _levels(raw: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the evidence and the mappings in it, the deeper first: a copy at the top says less than its original."""
    for key, value in raw.items():
        if isinstance(value, Mapping) and key not in _DRAWN and len(path) < _MAX_DEPTH:
            yield from _levels(value, (*path, str(key)))
    yield path, raw


def _null(path: tuple[str, ...], level: Mapping[str, Any]) -> Null | None:
    draws = _numbers(level.get("null_draws"))
    real = number(level.get("statistic"))
    if not draws or real is None:
        return None
    middle = sorted(draws)
    median = (middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]) / 2
    said, lam = level.get("null_unit"), number(level.get("lam_star"))
    unit = clean(said) if isinstance(said, str) else ""
    return Null(".".join(path), real, draws[:_MAX_DRAWS], median, unit, 1.0 if lam is None else lam)


def _numbers(value: object) -> tuple[float, ...]:
    """Return the finite numbers of a list, in order."""
    if not isinstance(value, list | tuple):
        return ()
    return tuple(found for entry in value if (found := number(entry)) is not None)


def _all_numbers(value: object, n: int) -> tuple[float, ...]:
    found = _numbers(value)
    return found if len(found) == n and isinstance(value, list | tuple) and len(value) == n else ()


def _listed(value: object, read: Callable[[Mapping[str, Any]], Any], limit: int) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        return ()
    entries = (read(entry) for entry in value if isinstance(entry, Mapping))
    return tuple(entry for entry in entries if entry is not None)[:limit]


def _curve(raw: Mapping[str, Any]) -> Curve | None:
    x, y = raw.get("x"), raw.get("y")
    if not isinstance(x, list | tuple) or not isinstance(y, list | tuple) or not len(x) == len(y) <= _MAX_POINTS:
        return None
    low, high = _all_numbers(raw.get("low"), len(x)), _all_numbers(raw.get("high"), len(x))
    kept = [i for i in range(len(x)) if number(x[i]) is not None and number(y[i]) is not None]
    if not kept:
        return None
    band = bool(low) and bool(high)
    kept.sort(key=lambda i: float(x[i]))
    return Curve(
        name=words(raw.get("name") or "curve"),
        x=tuple(float(x[i]) for i in kept),
        y=tuple(float(y[i]) for i in kept),
        low=tuple(low[i] for i in kept) if band else (),
        high=tuple(high[i] for i in kept) if band else (),
        x_label=clean(raw.get("x_label") or "x", limit=80),
        unit=clean(raw.get("unit") or "", limit=40),
        minimum=number(raw.get("minimum")),
    )


def _matrix(raw: object) -> Matrix | None:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("values"), list | tuple):
        return None
    labels, values = raw.get("labels"), raw["values"]
    if not isinstance(labels, list | tuple) or not labels or len(values) != len(labels):
        return None
    if any(not isinstance(row, list | tuple) or len(row) != len(labels) for row in values):
        return None
    side = min(len(labels), _MAX_SIDE)
    return Matrix(
        labels=tuple(clean(name, limit=60) for name in labels[:side]),
        values=tuple(tuple(number(cell) for cell in row[:side]) for row in values[:side]),
        unit=clean(raw.get("unit") or "", limit=40),
        rows=clean(raw.get("rows") or "row", limit=120),
        columns=clean(raw.get("columns") or "column", limit=120),
    )


def _layer(raw: Mapping[str, Any]) -> Layer | None:
    value, index = number(raw.get("value")), number(raw.get("layer"))
    if value is None:
        return None
    return Layer(clean(raw.get("module") or "", limit=120), None if index is None else int(index), value, _p(raw))


def _p(raw: Mapping[str, Any]) -> float | None:
    return number(raw.get("p"))


def _extremes(path: tuple[str, ...], raw: object) -> Extremes | None:
    if not isinstance(raw, Mapping):
        return None
    largest, smallest = (_listed(raw.get(end), _item, _MAX_EXTREMES) for end in ("largest", "smallest"))
    return Extremes(".".join(path), largest, smallest) if largest or smallest else None


def _item(raw: Mapping[str, Any]) -> Item | None:
    value, tokens = number(raw.get("value")), number(raw.get("tokens"))
    if value is None:
        return None
    text = clean(raw.get("text") or "", limit=400)
    return Item(clean(raw.get("label") or "", limit=120), value, None if tokens is None else int(tokens), text)


def _tables(levels: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]) -> Iterator[Table]:
    """Yield every list of flat records: those of `per_item` and `dropped` first, then what else there is."""
    found: list[tuple[int, Table]] = []
    for path, level in levels:
        for key, value in level.items():
            if key in ("curves", "layers") or not _is_records(value):
                continue
            order = {"per_item": 0, "dropped": 1}.get(str(key), 2)
            name = {"per_item": "every item", "dropped": "left out"}.get(str(key), words(key))
            title = f"{name} ({words('.'.join(path))})" if path else name
            found.append((order, _table(title, value)))
    yield from (table for _, table in sorted(found, key=lambda pair: pair[0]))


def _is_records(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    kept = records[:_MAX_ROWS]
    keys = [key for key in dict.fromkeys(k for row in kept for k in row) if _has_cells(kept, key)]
    keys.sort(key=lambda key: {"label": 0, "value": 1}.get(str(key), 2))
    keys = keys[:_MAX_COLUMNS]
    rows = tuple(tuple(_cell(row.get(key)) for key in keys) for row in kept)
    return Table(title, tuple(map(words, keys)), rows, len(records) - len(kept))


def _has_cells(records: Sequence[Mapping[str, Any]], key: Any) -> bool:
    return not any(isinstance(row.get(key), Mapping) for row in records)


def _cell(value: object) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (found := number(value)) is not None:
        return None if value is None else value if isinstance(value, int) else found
    if isinstance(value, list | tuple):
        return clean(", ".join(map(_word, value[:20])), limit=_CELL_WIDTH)
    return clean(value, limit=_CELL_WIDTH)


def _word(value: object) -> str:
    found = number(value)
    return str(value) if found is None else numbers.figure(found)


def _facts(levels: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    """Yield the single values of the evidence, those at the top first."""
    for path, level in sorted(levels, key=lambda pair: len(pair[0])):
        for key, value in level.items():
            if key in _DRAWN or isinstance(value, Mapping) or _is_records(value) or value in (None, "", [], ()):
                continue
            yield ": ".join(map(words, (*path, key))), fact(value)


def fact(value: object) -> str:
    """Return a value as a reader wants it: a count as a count, other numbers to three digits, lists with commas."""
    found = number(value)
    if found is None or isinstance(value, bool):
        shown = _cell(value)
        return "" if shown is None else str(shown)
    return f"{value:,}" if isinstance(value, int) else numbers.effect(found, None)
