"""The HTML report: one file, offline, nothing in it that the browser would have to fetch or could be made to run.

A content security policy allows exactly one style sheet and one script, by their hashes. Everything else on the page
is text escaped by the template engine, and pictures rebuilt from a list of allowed shapes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from dlm_sway.core.result import Verdict
from dlm_sway.report import numbers
from dlm_sway.report.document import Claim, Document, LinkView, ProbeView, Result, document_of
from dlm_sway.report.evidence import Cell, Table
from dlm_sway.report.html.figures import Figure, Studio, chain_figure, claim_figure, probe_figures
from dlm_sway.report.text import shorten
from dlm_sway.suite.gate import Gate

MAX_BYTES: Final = 1_500_000
_PICTURES_BYTES: Final = 700_000
_ANSWERS: Final = {"check": "Questions", "suite": "Claims", "chain": "Steps"}
_SYMBOLS: Final = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.WARN: "!",
    Verdict.INCONCLUSIVE: "?",
    Verdict.SKIP: "\N{EN DASH}",
    Verdict.ERROR: "‼",
}


@dataclass(frozen=True, slots=True)
class _Limits:
    """How much of a long report is kept."""

    claims: int
    probes: int
    rows: int
    pictures: int
    text: int


# Each is tried in turn until the page is small enough; the last is, whatever is in it.
_LIMITS: Final = (
    _Limits(claims=400, probes=200, rows=200, pictures=150, text=400),
    _Limits(claims=400, probes=200, rows=40, pictures=80, text=200),
    _Limits(claims=300, probes=100, rows=10, pictures=40, text=120),
    _Limits(claims=150, probes=40, rows=5, pictures=20, text=80),
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A claim or a probe with what is drawn of it."""

    view: Any
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()


def to_html(result: Result, *, gate: Gate | None = None) -> str:
    """Return the result as one HTML page under 1.5 MB; what did not fit is counted and stands in the JSON.

    Args:
        result: of a check, a suite or a walk along the chain.
        gate: what a gate found of it, for the head of the page.
    """
    document = document_of(result, gate)
    page = ""
    drawn: dict[Any, str] = {}
    for limits in _LIMITS:
        page = _rendered(document, limits, Studio(limits.pictures, _PICTURES_BYTES, drawn=drawn))
        if len(page.encode()) < MAX_BYTES:
            return page
    return page


def _rendered(document: Document, limits: _Limits, studio: Studio) -> str:
    chain = chain_figure(document.links, studio) if document.links else None
    claims = [_claim(claim, studio, limits) for claim in document.claims[: limits.claims]]
    probes = [_probe(view, studio, limits) for view in document.probes[: limits.probes]]
    text: str = (
        environment()
        .get_template("page.html.jinja")
        .render(
            doc=document,
            answers=_ANSWERS[document.kind],
            chain=chain,
            links=_links(document.links, limits),
            claims=claims,
            probes=probes,
            more_claims=max(len(document.claims) - limits.claims, 0),
            more_probes=max(len(document.probes) - limits.probes, 0),
            missing=studio.missing,
            **page_parts(),
        )
    )
    return text if text.endswith("\n") else f"{text}\n"


def _links(links: Sequence[LinkView], limits: _Limits) -> Table:
    """Return the links as a table: verdict, effect left, what to do."""
    rows = tuple((x.name, x.what, str(x.verdict), x.shown, ": ".join(filter(None, (x.cause, x.remedy)))) for x in links)
    return _cut(Table("", ("link", "what it is", "verdict", "effect left", "what to do"), rows), limits)


def _claim(claim: Claim, studio: Studio, limits: _Limits) -> _Shown:
    figure = claim_figure(claim, studio)
    row = replace(claim.row, message=shorten(claim.row.message, 2 * limits.text))
    return _Shown(replace(claim, row=row), () if figure is None else (_cut_figure(figure, limits),))


def _probe(view: ProbeView, studio: Studio, limits: _Limits) -> _Shown:
    figures = tuple(_cut_figure(figure, limits) for figure in probe_figures(view, studio))
    return _Shown(view, figures, tuple(_cut(table, limits) for table in view.evidence.tables))


def _cut_figure(figure: Figure, limits: _Limits) -> Figure:
    return replace(figure, table=_cut(figure.table, limits))


def _cut(table: Table, limits: _Limits) -> Table:
    kept = tuple(tuple(_short(cell, limits.text) for cell in row) for row in table.rows[: limits.rows])
    return replace(table, rows=kept, left_out=table.left_out + len(table.rows) - len(kept))


def _short(cell: Cell, width: int) -> Cell:
    return shorten(cell, width) if isinstance(cell, str) else cell


def page_parts() -> dict[str, str]:
    """Return the one style sheet and the one script of every page, and the policy that allows no others."""
    style, script = _resource("style.css"), _resource("script.js")
    return {"style": style, "script": script, "policy": _policy(style, script)}


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{_sha256(style)}'",
            f"script-src 'sha256-{_sha256(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _resource(name: str) -> str:
    return files("dlm_sway.report.html").joinpath(name).read_text(encoding="utf-8")


@cache
def environment() -> Any:
    """Return the template engine: all text is escaped, and a name that does not exist is an error."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"symbol": _SYMBOLS.__getitem__, "seconds": _seconds, "ours": Markup}
    made.globals |= {"numbered": _numbered, "cells": _cells, "is_open": _is_open}
    return made


def _cells(table: Table) -> tuple[tuple[tuple[str, Cell], ...], ...]:
    """Return each row's cells as text beside their values; the numbers of a column share their decimals."""
    columns = zip(*table.rows, strict=True)
    like = [[cell for cell in column if isinstance(cell, float)] for column in columns]
    return tuple(tuple((_text(cell, like[i]), cell) for i, cell in enumerate(row)) for row in table.rows)


def _text(cell: Cell, like: Sequence[float]) -> str:
    if isinstance(cell, int | float):
        return f"{cell:,}" if isinstance(cell, int) else numbers.figure(cell, like=like)
    return "" if cell is None else cell


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"  # noqa: PLR2004 (three digits)


def _numbered(table: Table) -> tuple[bool, ...]:
    """Return which columns hold numbers only, so that they stand to the right and sort as numbers."""
    columns = list(zip(*table.rows, strict=True))
    kinds = [{type(cell) for cell in column} - {type(None)} for column in columns] or [set()] * len(table.columns)
    return tuple(bool(found) and found <= {int, float} for found in kinds)


def _is_open(shown: _Shown) -> bool:
    """Return whether a probe is unfolded at first: what did not pass, and what has a picture of its own kind."""
    view: ProbeView = shown.view
    pictured = view.evidence.curves or view.evidence.matrix or view.evidence.layers
    return bool(pictured) or view.verdict not in (Verdict.PASS, Verdict.SKIP)
