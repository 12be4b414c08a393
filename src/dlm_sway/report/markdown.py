"""The report as Markdown that fits a comment on a pull request: verdict and claims in sight, details folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dlm_sway.core.result import Verdict
from dlm_sway.report import numbers
from dlm_sway.report.document import Claim, Document, ProbeView, Result, document_of
from dlm_sway.report.evidence import Cell, Extremes, Table
from dlm_sway.report.gate import GateView
from dlm_sway.report.markdown_text import in_html, inert, row
from dlm_sway.report.suite_terminal import score_line
from dlm_sway.suite.gate import Gate

MAX_BYTES: Final = 60_000  # GitHub takes 65,536 characters a comment; the rest is room for what a bot adds
_MARKS: Final = {
    Verdict.PASS: "✅",
    Verdict.FAIL: "❌",
    Verdict.WARN: "⚠️",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.SKIP: "\N{HEAVY MINUS SIGN}",
    Verdict.ERROR: "🛑",
}


@dataclass(frozen=True, slots=True)
class _Limits:
    """How much of a long report is kept: claims, probes and rows a table, characters a text."""

    claims: int
    probes: int
    rows: int
    text: int
    facts: int


# Each is tried in turn until the report fits; the last fits whatever is in it.
_LIMITS: Final = (
    _Limits(claims=200, probes=100, rows=20, text=400, facts=40),
    _Limits(claims=100, probes=60, rows=5, text=300, facts=20),
    _Limits(claims=80, probes=30, rows=3, text=160, facts=0),
    _Limits(claims=60, probes=0, rows=0, text=120, facts=0),
    _Limits(claims=20, probes=0, rows=0, text=40, facts=0),
)


def to_markdown(result: Result, *, gate: Gate | None = None) -> str:
    """Return the result, under what a gate found of it, as Markdown of GitHub's under 60 KB; the rest is counted."""
    document = document_of(result, gate)
    texts = (_rendered(document, limits) for limits in _LIMITS)
    return next((text for text in texts if len(text.encode()) < MAX_BYTES), _rendered(document, _LIMITS[-1]))


def gate_lines(gate: GateView, *, n: int = 20, limit: int = 400) -> str:
    """Return what a gate found: a line, and one more for each of the first `n` things where several closed it."""
    bold = f"**{_MARKS[gate.verdict]} {gate.headline[0].upper()}{gate.headline[1:]}**"
    told = [f"{inert(breach.name, limit=limit)}: {inert(breach.message, limit=limit)}" for breach in gate.breaches[:n]]
    if len(gate.breaches) <= 1:
        return ": ".join((bold, *told))
    left = len(gate.breaches) - n
    return "\n".join((bold, "", *(f"- {each}" for each in told), *([f"- and {left} more"] if left > 0 else [])))


def verdict_mark(verdict: Verdict) -> str:
    """Return `✅ pass`."""
    return f"{_MARKS[verdict]} {verdict}"


def _rendered(document: Document, limits: _Limits) -> str:
    parts = [
        "" if document.gate is None else gate_lines(document.gate, limit=limits.text),
        f"## {_MARKS[document.verdict]} {document.verdict.upper()}: {inert(document.title)}",
        f"{inert(document.summary, limit=limits.text * 2)}  \n{_subject(document, limits)}".strip(),
        inert(score_line(document.score), limit=limits.text),
        _links(document, limits),
        _claims(document.claims[: limits.claims], limits),
        _more(len(document.claims) - limits.claims, "claim"),
        _steps(document, limits),
        *(_probe(view, limits) for view in document.probes[: limits.probes]),
        _more(len(document.probes) - limits.probes, "probe"),
        _provenance(document, limits),
        f"<sub>{in_html(document.work, limit=limits.text)}</sub>" if document.work else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _subject(document: Document, limits: _Limits) -> str:
    return f"{inert(document.subject, limit=limits.text)}" if document.subject else ""


def _more(n: int, what: str) -> str:
    return f"*{n:,} more {what}{'s' if n > 1 else ''} in the JSON*" if n > 0 else ""


def _links(document: Document, limits: _Limits) -> str:
    """Return the panel of the chain; its links are few, and each has a line in any report."""
    if not document.links:
        return ""
    lines = [row("link", "", "effect left", "what to do"), row("---", "---", "---", "---")]
    for link in document.links:
        todo = ": ".join(part for part in (link.cause, link.remedy) if part)
        cells = (inert(x, limit=limits.text) for x in (link.shown, todo))
        lines.append(row(inert(link.name), verdict_mark(link.verdict), *cells))
    return "\n".join(lines)


def _claims(claims: Sequence[Claim], limits: _Limits) -> str:
    if not claims:
        return ""
    head = [
        row("", "question", "effect", "95 % interval", "p", "in words"),
        row("---", "---", "---", "---", "---", "---"),
    ]
    return "\n".join((*head, *(_claim(claim, limits) for claim in claims)))


def _claim(claim: Claim, limits: _Limits) -> str:
    found = claim.row
    cells = (found.question, found.effect, found.interval, found.p, found.message)
    return row(verdict_mark(found.verdict), *(inert(cell, limit=limits.text) for cell in cells))


def _steps(document: Document, limits: _Limits) -> str:
    lines = [f"{i}. {inert(step, limit=limits.text)}" for i, step in enumerate(document.steps[:20], start=1)]
    return "\n".join(("**Next**", "", *lines)) if lines else ""


def _probe(view: ProbeView, limits: _Limits) -> str:
    """Return one probe, folded; empty when the table of claims has said it all."""
    inside = "\n\n".join(part for part in _details(view, limits) if part)
    if not inside:
        return ""
    title = f"{_MARKS[view.verdict]} <b>{in_html(view.name)}</b> ({in_html(view.kind)})"
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"


def _details(view: ProbeView, limits: _Limits) -> Iterator[str]:
    nulls = [f"{inert(claim.row.question)}: against {inert(claim.row.null)}" for claim in view.claims if claim.row.null]
    yield inert(view.row.message, limit=limits.text)
    yield "\n".join(f"- {line}" for line in nulls)
    for curve in view.evidence.curves if limits.rows else ():
        cells = tuple(zip(curve.x, curve.y, strict=True))
        columns = (curve.x_label, f"{curve.name} ({curve.unit})" if curve.unit else curve.name)
        yield _table(Table("", columns, cells), limits)
    for extremes in view.evidence.extremes if limits.rows else ():
        yield _extremes(extremes, limits)
    for table in view.evidence.tables if limits.rows else ():
        yield f"**{inert(table.title)}**\n\n{_table(table, limits)}"
    facts = view.evidence.facts[: limits.facts]
    yield ", ".join(f"{inert(name)} {inert(value, limit=80)}" for name, value in facts)


def _extremes(extremes: Extremes, limits: _Limits) -> str:
    parts = []
    for title, items in (("largest", extremes.largest), ("smallest", extremes.smallest)):
        rows = tuple((item.label, item.value, item.text) for item in items)
        if rows:
            where = f" ({inert(extremes.path)})" if extremes.path else ""
            parts.append(f"**{title}{where}**\n\n{_table(Table('', ('item', 'value', 'text'), rows), limits)}")
    return "\n\n".join(parts)


def _table(table: Table, limits: _Limits) -> str:
    shown = table.rows[: limits.rows]
    lines = [row(*map(inert, table.columns)), row(*("---" for _ in table.columns))]
    lines += [row(*(_cell(cell, limits) for cell in cells)) for cells in shown]
    left = len(table.rows) - len(shown) + table.left_out
    return "\n".join(lines) + (f"\n\n{_more(left, 'row')}" if left else "")


def _cell(cell: Cell, limits: _Limits) -> str:
    if isinstance(cell, int | float):
        return f"{cell:,}" if isinstance(cell, int) else numbers.figure(cell)
    return inert("" if cell is None else cell, limit=limits.text)


def _provenance(document: Document, limits: _Limits) -> str:
    facts = document.provenance[: limits.facts]
    if not facts:
        return ""
    rows = tuple((name, value) for name, value in facts)
    table = _table(Table("", ("what", "value"), rows), _Limits(0, 0, len(rows), limits.text, 0))
    return f"<details><summary>Where it comes from</summary>\n\n{table}\n\n</details>"
