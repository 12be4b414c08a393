"""The figures of the HTML report: a picture where it can be drawn, and the same numbers in a table in any case."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dlm_sway.core.errors import MissingExtraError
from dlm_sway.report import charts, numbers
from dlm_sway.report.document import Claim, LinkView, ProbeView
from dlm_sway.report.effects import Effect
from dlm_sway.report.evidence import Cell, Curve, Extremes, Layer, Matrix, Null, Table
from dlm_sway.report.html.svg import draw
from dlm_sway.report.palette import TOKENS

_MAX_ROWS: Final = 400
_WIDE_FROM: Final = 7


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture.

    Attributes:
        title: what it shows, in a few words.
        caption: what can be seen on it, for those who do not see it too.
        svg: the picture, or None where it was not drawn.
        table: its numbers.
        room: `wide` for one that wants a row of its own, `pair` for one whose table is shown beside it.
    """

    title: str
    caption: str
    svg: str | None
    table: Table
    room: Literal["", "wide", "pair"] = ""


@dataclass(slots=True)
class Studio:
    """Draws pictures while there is room; what comes later, or has nothing to draw it with, is left to its table.

    Attributes:
        pictures: how many may still be drawn.
        size: how many characters they may still have together.
        missing: the command that installs what is missing, once that was met.
        drawn: what was drawn before of the same numbers, kept from one attempt at a page to the next.
    """

    pictures: int
    size: int
    missing: str | None = None
    drawn: dict[Any, str] = field(default_factory=dict)

    def picture(self, numbers_of: Hashable, make: Callable[[], Any], *, label: str) -> str | None:
        """Return a picture as SVG, or None."""
        if self.pictures <= 0 or self.size <= 0 or self.missing is not None:
            return None
        key = (numbers_of, label)
        if key not in self.drawn:
            try:
                self.drawn[key] = draw(make(), label=label)
            except MissingExtraError as error:
                self.missing = error.remedy or "the report extra"
                return None
        self.pictures -= 1
        self.size -= len(self.drawn[key])
        return self.drawn[key]


def claim_figure(claim: Claim, studio: Studio, *, beside: tuple[Effect, ...] = ()) -> Figure | None:
    """Return the picture of a claim's effect; None when there is nothing to compare the effect with.

    Args:
        claim: what is drawn.
        studio: who draws.
        beside: effects of the same unit whose pictures stand beside it, so that all have one axis.
    """
    effect = claim.effect
    if effect is None or (effect.low is None and effect.high is None and effect.bar is None and effect.null is None):
        return None
    caption = _effect_caption(claim, effect)
    label = f"{claim.row.question}: {caption}"
    svg = studio.picture((effect, beside), lambda: charts.effect_chart(effect, TOKENS, beside=beside), label=label)
    return Figure(claim.row.question, caption, svg, _effect_table(effect))


def chain_figure(links: tuple[LinkView, ...], studio: Studio) -> Figure:
    """Return how much of the effect is left at each link."""
    known = [link for link in links if link.left is not None]
    told = ", ".join(f"{link.name} {link.shown}" for link in known) or "no link was measured"
    caption = f"share of the adapter's effect that is left: {told}"
    if known:
        caption += f"; dashed: {known[0].minimum:.0%}, under which it counts as lost"
    rows: tuple[tuple[Cell, ...], ...] = tuple((x.name, x.left, x.low, x.high) for x in links)
    label = f"effect left, link by link: {caption}"
    svg = studio.picture(links, lambda: charts.chain_chart(links, TOKENS), label=label) if known else None
    return Figure("effect left, link by link", caption, svg, _cut("", ("link", "effect left", "low", "high"), rows))


def probe_figures(view: ProbeView, studio: Studio) -> Iterator[Figure]:
    """Yield the pictures of a probe's evidence beyond those of its claims."""
    evidence = view.evidence
    for curve in evidence.curves:
        yield _curve(curve, studio)
    if evidence.matrix is not None:
        yield _matrix(evidence.matrix, studio)
    if evidence.layers:
        yield _layers(evidence.layers, studio)
    shown = [claim.effect.null.path for claim in view.claims if claim.effect and claim.effect.null]
    for null in evidence.nulls:
        if null.path not in shown:
            yield _null(null, studio)
    for extremes in evidence.extremes:
        yield _extremes(extremes, studio)


def _effect_caption(claim: Claim, effect: Effect) -> str:
    parts = [f"effect {claim.row.effect}"]
    if claim.row.interval:
        parts.append(f"95 % interval {claim.row.interval}")
    if effect.bar is not None:
        sign = "±" if effect.bar.both else ""
        parts.append(f"declared {effect.bar.side} {sign}{effect.bar.value:.3g}")
    if effect.null is not None:
        parts.append(_beaten(effect.null))
    return "; ".join(parts)


def _beaten(null: Null) -> str:
    under = sum(draw < null.real for draw in null.draws)
    scale = "" if null.lam == 1.0 else f"at {null.lam:.2g} of its scale "
    return f"{scale}above {under} of {len(null.draws)} null draws, whose median is {numbers.figure(null.median)}"


def _effect_table(effect: Effect) -> Table:
    rows: list[tuple[Cell, ...]] = [("effect", effect.estimate)]
    rows += [(name, value) for name, value in (("low", effect.low), ("high", effect.high)) if value is not None]
    if effect.bar is not None:
        rows.append((effect.bar.side, effect.bar.value))
    if effect.null is not None:
        rows += [(charts.as_nulls_were_asked(effect.null), effect.null.real), ("median null draw", effect.null.median)]
        rows += [("null draw", draw) for draw in sorted(effect.null.draws, reverse=True)]
    return _cut("", ("what", effect.unit or "value"), tuple(rows))


def _curve(curve: Curve, studio: Studio) -> Figure:
    best = max(range(len(curve.y)), key=lambda i: curve.y[i])
    caption = (
        f"{curve.name} from {numbers.figure(curve.y[0])} to {numbers.figure(curve.y[-1])} {curve.unit}, "
        f"highest at {curve.x_label} {curve.x[best]:g} ({numbers.figure(curve.y[best])})"
    )
    minimum = "" if curve.minimum is None else f"; the dashed line is the declared {curve.minimum:.3g}"
    columns: tuple[str, ...] = (curve.x_label, f"{curve.name} ({curve.unit})" if curve.unit else curve.name)
    rows: tuple[tuple[Cell, ...], ...] = tuple(zip(curve.x, curve.y, strict=True))
    if curve.low:
        columns += ("low", "high")
        rows = tuple((*row, low, high) for row, low, high in zip(rows, curve.low, curve.high, strict=True))
    svg = studio.picture(curve, lambda: charts.curve_chart(curve, TOKENS), label=caption)
    return Figure(curve.name, caption + minimum, svg, _cut("", columns, rows))


def _matrix(matrix: Matrix, studio: Studio) -> Figure:
    cells = [
        (value, matrix.labels[i], matrix.labels[j])
        for i, row in enumerate(matrix.values)
        for j, value in enumerate(row)
        if value is not None
    ]
    caption = f"rows: {matrix.rows}; columns: {matrix.columns}, numbered as the rows"
    if cells:
        value, i, j = max(cells)
        caption += f"; the largest value is {numbers.figure(value)} {matrix.unit} ({i}, {j})"
    rows = tuple((name, *row) for name, row in zip(matrix.labels, matrix.values, strict=True))
    svg = studio.picture(matrix, lambda: charts.matrix_chart(matrix, TOKENS), label=caption)
    numbered = tuple(f"{i} {name}" for i, name in enumerate(matrix.labels, start=1))
    room: Literal["", "wide"] = "wide" if len(rows) > _WIDE_FROM else ""
    return Figure("every pair", caption, svg, _cut("", ("", *numbered), rows), room)


def _layers(layers: tuple[Layer, ...], studio: Studio) -> Figure:
    top = max(layers, key=lambda layer: abs(layer.value))
    sure = sum(layer.p is not None and layer.p <= 0.05 for layer in layers)  # noqa: PLR2004 (the usual level)
    caption = f"{len(layers)} modules; the largest is {top.module} with {numbers.figure(top.value)}"
    caption += f"; {sure} marked with a dot have p <= 0.05" if sure else ""
    columns = ("module", "layer", "value", "p")
    rows: tuple[tuple[Cell, ...], ...] = tuple((x.module, x.layer, x.value, x.p) for x in layers)
    svg = studio.picture(layers, lambda: charts.layer_chart(layers, TOKENS), label=caption)
    room: Literal["", "wide"] = "wide" if len({layer.layer for layer in layers}) > 2 * _WIDE_FROM else ""
    return Figure("the model, layer by layer", caption, svg, _cut("", columns, rows), room)


def _null(null: Null, studio: Studio) -> Figure:
    effect = Effect(null.real, None, None, "", None, null)
    name = null.path.replace("_", " ").replace(".", ": ") or "statistic"
    caption = f"statistic {numbers.figure(null.real)}, {_beaten(null)}"
    svg = studio.picture(effect, lambda: charts.effect_chart(effect, TOKENS), label=f"{name}: {caption}")
    return Figure(f"{name} among its null draws", caption, svg, _effect_table(effect))


def _extremes(extremes: Extremes, studio: Studio) -> Figure:
    items = tuple(dict.fromkeys((*extremes.largest, *reversed(extremes.smallest))))
    caption = f"{len(extremes.largest)} largest and {len(extremes.smallest)} smallest values"
    rows: tuple[tuple[Cell, ...], ...] = tuple((x.label, x.value, x.tokens, x.text) for x in items)
    svg = studio.picture(extremes, lambda: charts.items_chart(extremes, TOKENS), label=caption)
    where = f" ({extremes.path.replace('_', ' ')})" if extremes.path else ""
    table = _cut("", ("item", "value", "tokens", "text"), rows)
    return Figure(f"items that stand out{where}", caption, svg, table, "pair")


def _cut(title: str, columns: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]) -> Table:
    return Table(title, columns, rows[:_MAX_ROWS], max(len(rows) - _MAX_ROWS, 0))
