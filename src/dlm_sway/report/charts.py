"""Pictures of evidence as Altair charts, for the HTML report and for notebooks. Needs the `report` extra."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from dlm_sway.core.extras import needs_extra
from dlm_sway.report import numbers
from dlm_sway.report.document import LinkView
from dlm_sway.report.effects import Effect
from dlm_sway.report.evidence import Curve, Extremes, Layer, Matrix, Null
from dlm_sway.report.palette import LIGHT, Palette
from dlm_sway.report.text import shorten

WIDTH: Final = 340
_LANE: Final = 34
_DOT: Final = 7.0
_MAX_STACK: Final = 9
_LOG_FROM: Final = 30.0
_CELLS_WITH_NUMBERS: Final = 8
_LABEL: Final = 26
_MODULES: Final = 24
_SIGNIFICANT: Final = 0.05
_SAME: Final = 0.02  # nearer marks would cover each other


def effect_chart(effect: Effect, palette: Palette = LIGHT, *, beside: Sequence[Effect] = ()) -> Any:
    """Return the effect with its interval above its null draws, and what it had to reach.

    Args:
        effect: what is drawn.
        palette: its colours.
        beside: effects whose pictures are read together with this one: the axis has room for all of them.
    """
    alt = _altair()
    null = effect.null
    dots, depth = _stacked(effect, beside) if null else ([], 0)
    height = _LANE + (depth * _DOT + _DOT if null else 0)
    dots = [dot | {"y": height + dot["y"]} for dot in dots]  # piles stand on the axis
    scale = _scale(alt, (effect, *beside))
    share = {"format": "~%"} if numbers.is_share(effect.unit) else {}
    axis = alt.Axis(tickCount=5, domain=False, labelFlush=False, **share)
    x = alt.X("x:Q", title=effect.unit or None, scale=scale, axis=axis)
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[0, height], range=[0, height], nice=False))
    layers = [*_goal(alt, effect, palette, height=height, scale=scale)]
    if dots:
        values = alt.Data(values=dots)
        layers.append(
            alt.Chart(values).mark_circle(size=26, color=palette.null, opacity=0.85).encode(x=x, y=y, description="t:N")
        )
    layers += _estimate(alt, effect, palette, x=x, y=y)
    if null and not math.isclose(null.real, effect.estimate, rel_tol=_SAME):
        layers.append(_as_nulls_were_asked(alt, null, effect.unit, palette, x=x, y=y))
    return _finished(alt.layer(*layers).properties(width=WIDTH, height=height), palette)


def chain_chart(links: Sequence[LinkView], palette: Palette = LIGHT) -> Any:
    """Return the share of the effect that is left at each link, with its interval, in the order of the chain."""
    alt = _altair()
    rows = [
        {"r": link.name, "x": link.left, "low": link.low, "high": link.high, "t": f"{link.name}: {link.shown}"}
        for link in links
        if link.left is not None
    ]
    minimum = next(link.minimum for link in links if link.left is not None)
    reach = [value for row in rows for value in (row["x"], row["low"], row["high"]) if isinstance(value, float)]
    scale = alt.Scale(domain=[min(0.0, *reach), max(1.1, *reach)], nice=False)
    axis = alt.Axis(format="%", tickCount=6, grid=False)
    x = alt.X("x:Q", title="effect left", scale=scale, axis=axis)
    y = alt.Y("r:N", sort=[link.name for link in links], title=None, axis=alt.Axis(labelLimit=140, ticks=False))
    base = alt.Chart(alt.Data(values=rows))
    spans = alt.Chart(alt.Data(values=[row for row in rows if row["low"] is not None and row["high"] is not None]))
    span = spans.mark_rule(color=palette.mark, strokeWidth=4, opacity=0.55, strokeCap="round", aria=False)
    point = base.mark_point(shape="diamond", filled=True, size=150, color=palette.mark, opacity=1)
    layers = [
        _rule(alt, palette.bar, x=minimum, dash=True, scale=scale),
        span.encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=y),
        point.encode(x=x, y=y, description="t:N"),
    ]
    return _finished(alt.layer(*layers).properties(width=WIDTH, height=_LANE * max(len(links), 2)), palette)


def curve_chart(curve: Curve, palette: Palette = LIGHT) -> Any:
    """Return a curve with its band, its points, zero, and the declared minimum."""
    alt = _altair()
    rows: list[dict[str, Any]] = [
        {"x": x, "y": y, "t": f"{curve.x_label} {x:g}: {numbers.figure(y)} {curve.unit}".strip()}
        for x, y in zip(curve.x, curve.y, strict=True)
    ]
    if curve.low:
        rows = [row | {"low": a, "high": b} for row, a, b in zip(rows, curve.low, curve.high, strict=True)]
    base = alt.Chart(alt.Data(values=rows))
    x = alt.X("x:Q", title=curve.x_label, axis=alt.Axis(tickCount=6, grid=False))
    y = alt.Y("y:Q", title=curve.unit or None, axis=alt.Axis(tickCount=5))
    layers = [_rule(alt, palette.grid, y=0.0)]
    if curve.low:
        layers.append(base.mark_area(color=palette.mark, opacity=0.18, aria=False).encode(x=x, y="low:Q", y2="high:Q"))
    if curve.minimum is not None:
        layers.append(_rule(alt, palette.bar, y=curve.minimum, dash=True))
    layers.append(base.mark_line(color=palette.mark, strokeWidth=2.5, aria=False).encode(x=x, y=y))
    layers.append(base.mark_circle(color=palette.mark, size=50, opacity=1).encode(x=x, y=y, description="t:N"))
    return _finished(alt.layer(*layers).properties(width=WIDTH, height=190), palette)


def matrix_chart(matrix: Matrix, palette: Palette = LIGHT) -> Any:
    """Return a heat map: colour for the sign, strength for the size; columns are numbered as the rows are named."""
    alt = _altair()
    names = [f"{i} {shorten(name, _LABEL)}" for i, name in enumerate(matrix.labels, start=1)]
    cells: list[dict[str, Any]] = [
        {"r": names[i], "c": str(j + 1), "v": value, "t": f"{names[i]}, column {j + 1}: {numbers.figure(value)}"}
        for i, values in enumerate(matrix.values)
        for j, value in enumerate(values)
        if value is not None
    ]
    columns = [str(j + 1) for j in range(len(names))]
    x = alt.X("c:N", sort=columns, title=matrix.columns, axis=alt.Axis(labelAngle=0, orient="bottom", ticks=False))
    y = alt.Y("r:N", sort=names, title=None, axis=alt.Axis(labelLimit=180, ticks=False))
    chart = _heat(alt, cells, x, y, palette)
    if len(names) <= _CELLS_WITH_NUMBERS:
        digits = _digits(abs(cell["v"]) for cell in cells)
        shown = [cell | {"s": f"{cell['v']:.{digits}f}"} for cell in cells]
        text = alt.Chart(alt.Data(values=shown)).mark_text(color=palette.ink, fontSize=12, aria=False)
        chart = chart + text.encode(x=x, y=y, text="s:N")
    side = min(max(40 * len(names), 160), 560)
    height = min(max(30 * len(names), 90), 560)
    return _finished(chart.properties(width=side, height=height), palette)


def layer_chart(layers: Sequence[Layer], palette: Palette = LIGHT) -> Any:
    """Return a map of the model: layers across, kinds of module down; bars where layers have no numbers."""
    alt = _altair()
    if any(layer.layer is None for layer in layers):
        found = sorted(layers, key=lambda layer: -abs(layer.value))[:_MODULES]
        return _bars(alt, [(layer.module, layer.value, layer.module) for layer in found], palette)
    cells = [_layer_cell(layer) for layer in layers]
    across = sorted({layer.layer for layer in layers if layer.layer is not None})
    down = list(dict.fromkeys(cell["r"] for cell in cells))
    x = alt.X("c:O", sort=across, title="layer", axis=alt.Axis(labelAngle=0, ticks=False, labelOverlap=True))
    y = alt.Y("r:N", sort=down, title=None, axis=alt.Axis(labelLimit=120, ticks=False))
    chart = _heat(alt, cells, x, y, palette)
    sure = [cell for cell in cells if cell["p"] is not None and cell["p"] <= _SIGNIFICANT]
    if sure:
        marks = alt.Chart(alt.Data(values=sure)).mark_circle(color=palette.ink, size=12, opacity=0.9, aria=False)
        chart = chart + marks.encode(x=x, y=y)
    width, height = min(max(26 * len(across), WIDTH), 680), min(max(26 * len(down), 60), 480)
    return _finished(chart.properties(width=width, height=height), palette)


def items_chart(extremes: Extremes, palette: Palette = LIGHT) -> Any:
    """Return bars of the items that stand out, the largest on top."""
    items = list(dict.fromkeys((*extremes.largest, *reversed(extremes.smallest))))
    return _bars(_altair(), [(item.label, item.value, item.text or item.label) for item in items], palette)


def _altair() -> Any:
    with needs_extra("drawing pictures"):
        import altair as alt
    return alt


def _stacked(effect: Effect, beside: Sequence[Effect]) -> tuple[list[dict[str, Any]], int]:
    """Return a dot a draw, those near each other on top of each other, and the height of the highest pile."""
    null = effect.null
    if null is None:
        return [], 0
    reach = [
        0.0,
        *(v for e in (effect, *beside) for v in (e.estimate, *((e.null.real, *e.null.draws) if e.null else ()))),
    ]
    low, high = min(reach), max(reach)
    bins = max(WIDTH / _DOT, 1)
    piles: Counter[int] = Counter()
    dots: list[dict[str, Any]] = []
    for draw in sorted(null.draws):
        place = round((draw - low) / (high - low or 1.0) * bins)
        piles[place] += 1
        level = min(piles[place], _MAX_STACK)
        dots.append(
            {"x": draw, "y": -_DOT * (level - 0.5), "t": f"null draw: {numbers.figure(draw)} {effect.unit}".strip()}
        )
    return dots, min(max(piles.values()), _MAX_STACK)


def _reach(effect: Effect) -> list[float]:
    bar = effect.bar
    ends = [value for value in (effect.estimate, effect.low, effect.high) if value is not None]
    bars = [] if bar is None else [bar.value, -bar.value] if bar.both else [bar.value]
    return [*ends, *bars, *((effect.null.real, *effect.null.draws) if effect.null else ())]


def _scale(alt: Any, effects: Sequence[Effect]) -> Any:
    values = [value for effect in effects for value in _reach(effect)]
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_FROM:
        return alt.Scale(type="log", domain=[low / 1.3, high * 1.3], nice=False)
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or 1.0
    return alt.Scale(domain=[low - room if low < 0 else low, high + room if high > 0 else high], nice=False)


def _goal(alt: Any, effect: Effect, palette: Palette, *, height: float, scale: Any) -> Iterable[Any]:
    """Yield zero, a tint over where the effect should lie, and the declared line with its name."""
    if scale.to_dict().get("type") != "log":
        yield _rule(alt, palette.grid, x=0.0, scale=scale)
    bar = effect.bar
    if bar is None:
        return
    start, end = scale.to_dict()["domain"]
    spans = {"minimum": (bar.value, end), "margin": (-bar.value if bar.both else start, bar.value)}
    low, high = spans[bar.side]
    area = alt.Chart(alt.Data(values=[{"x": low, "x2": high, "y": 0, "y2": height}]))
    tint = area.mark_rect(color=palette.good, opacity=0.12, aria=False)
    yield tint.encode(x=alt.X("x:Q", scale=scale), x2="x2:Q", y=alt.Y("y:Q", axis=None), y2="y2:Q")
    for value in (bar.value, -bar.value) if bar.both else (bar.value,):
        yield _rule(alt, palette.bar, x=value, dash=True, scale=scale)


def _estimate(alt: Any, effect: Effect, palette: Palette, *, x: Any, y: Any) -> list[Any]:
    start, end = _reach_ends(effect)
    low = start if effect.low is None else effect.low
    high = end if effect.high is None else effect.high
    middle = _LANE / 2
    said = f"{numbers.figure(effect.estimate)} {effect.unit}".strip()
    layers = []
    if effect.low is not None or effect.high is not None:
        span = alt.Chart(alt.Data(values=[{"x": low, "x2": high, "y": middle}]))
        layers.append(
            span.mark_rule(color=palette.mark, strokeWidth=4, opacity=0.55, strokeCap="round", aria=False).encode(
                x=x, x2="x2:Q", y=y
            )
        )
    point = alt.Chart(alt.Data(values=[{"x": effect.estimate, "y": middle, "t": f"this adapter: {said}"}]))
    mark = point.mark_point(shape="diamond", filled=True, size=170, color=palette.mark, opacity=1)
    return [*layers, mark.encode(x=x, y=y, description="t:N")]


def _as_nulls_were_asked(alt: Any, null: Null, unit: str, palette: Palette, *, x: Any, y: Any) -> Any:
    """Return the adapter's own value among its draws: they saw a part of the texts, and maybe a part of the scale."""
    said = f"{as_nulls_were_asked(null)}: {numbers.figure(null.real)} {unit}".strip()
    point = alt.Chart(alt.Data(values=[{"x": null.real, "y": _LANE / 2, "t": said}]))
    mark = point.mark_point(shape="diamond", filled=False, size=110, strokeWidth=1.6, color=palette.mark, opacity=1)
    return mark.encode(x=x, y=y, description="t:N")


def as_nulls_were_asked(null: Null) -> str:
    """Return what the adapter's value among its draws is of."""
    scale = "" if null.lam == 1.0 else f", at {null.lam:.2g} of its scale"
    return f"the adapter on what the nulls saw{scale}"


def _reach_ends(effect: Effect) -> tuple[float, float]:
    values = [*_reach(effect), 0.0]
    return min(values), max(values)


def _rule(
    alt: Any, color: str, *, x: float | None = None, y: float | None = None, dash: bool = False, scale: Any = None
) -> Any:
    chart = alt.Chart(alt.Data(values=[{"at": y if x is None else x}]))
    mark = chart.mark_rule(color=color, strokeWidth=1.5, strokeDash=[5, 4] if dash else [1, 0], aria=False)
    if x is None:
        return mark.encode(y="at:Q")
    return mark.encode(x=alt.X("at:Q", scale=scale) if scale is not None else "at:Q")


def _heat(alt: Any, cells: Sequence[dict[str, Any]], x: Any, y: Any, palette: Palette) -> Any:
    """Return cells whose colour is their sign and whose opacity is their size relative to the largest."""
    largest = max((abs(cell["v"]) for cell in cells), default=0.0) or 1.0
    data = alt.Data(values=[cell | {"o": 0.05 + 0.7 * abs(cell["v"]) / largest, "s": cell["v"] >= 0} for cell in cells])
    colour = alt.Color("s:N", legend=None, scale=alt.Scale(domain=[True, False], range=[palette.more, palette.less]))
    chart = alt.Chart(data).mark_rect(stroke=palette.grid, strokeWidth=0.5)
    return chart.encode(x=x, y=y, color=colour, opacity=alt.Opacity("o:Q", scale=None, legend=None), description="t:N")


def _digits(sizes: Iterable[float]) -> int:
    """Return how many decimals give the largest two digits that count, so that a cell has room for the others too."""
    largest = max(sizes, default=0.0)
    return min(max(1 - math.floor(math.log10(largest)), 0), 4) if largest > 0 else 0


def _layer_cell(layer: Layer) -> dict[str, Any]:
    kind = layer.module.rsplit(f".{layer.layer}.", 1)[-1].rsplit(".", 1)[-1] or "module"
    p = "" if layer.p is None else f", p {numbers.p_value(layer.p)}"
    said = f"{layer.module}: {numbers.figure(layer.value)}{p}"
    return {"r": shorten(kind, _LABEL), "c": layer.layer, "v": layer.value, "p": layer.p, "t": said}


def _bars(alt: Any, named: Sequence[tuple[str, float, str]], palette: Palette) -> Any:
    rows: list[dict[str, Any]] = [
        {
            "r": f"{i:03d}",
            "l": shorten(label, _LABEL),
            "v": value,
            "s": value >= 0,
            "t": f"{numbers.figure(value)}: {text}",
        }
        for i, (label, value, text) in enumerate(named)
    ]
    names = {row["r"]: row["l"] for row in rows}
    chart = alt.Chart(alt.Data(values=rows))
    label = alt.Axis(labelExpr=_lookup(names), labelLimit=150, ticks=False, domain=False)
    y = alt.Y("r:N", sort=list(names), title=None, axis=label)
    colour = alt.Color("s:N", legend=None, scale=alt.Scale(domain=[True, False], range=[palette.more, palette.less]))
    x = alt.X("v:Q", title=None, axis=alt.Axis(tickCount=4))
    bars = chart.mark_bar(opacity=0.8, cornerRadius=2, height=11).encode(x=x, y=y, color=colour, description="t:N")
    height = min(max(20 * len(rows), 40), 520)
    return _finished(bars.properties(width=WIDTH - 90, height=height), palette)


def _lookup(names: dict[str, str]) -> str:
    """Return a Vega expression that gives a row's name; two rows may have the same one."""
    import json

    return f"({json.dumps(names, ensure_ascii=True)})[datum.value]"


def _finished(chart: Any, palette: Palette) -> Any:
    axis = {
        "labelColor": palette.muted,
        "titleColor": palette.muted,
        "gridColor": palette.grid,
        "domainColor": palette.grid,
        "tickColor": palette.grid,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    return chart.configure(background="#00000000", padding=4, view={"stroke": None}, axis=axis)
