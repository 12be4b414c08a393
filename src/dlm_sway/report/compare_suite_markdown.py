"""A comparison as Markdown that fits a comment on a pull request; what it quotes cannot become markup."""

from __future__ import annotations

from typing import Final

from dlm_sway.report.compare_words import (
    claims_in,
    difference_of,
    headline,
    name_of,
    p_of,
    verdict_of,
    with_error,
)
from dlm_sway.report.markdown_text import inert
from dlm_sway.report.text import clean, shorten
from dlm_sway.suite.compare_result import Comparison

_CELL: Final = 200
_ROWS: Final = 60


def compare_markdown(found: Comparison) -> str:
    """Return the comparison: regressions first, then a folded table a candidate, then the table of all."""
    lines = [f"## sway compare: {verdict_of(found).upper()}", ""]
    lines += [
        f"- **{r.why}**: {_text(r.candidate)}, {_text(r.probe)}{f' ({_text(r.claim)})' if r.claim else ''}: "
        f"{_text(r.message)}"
        for r in found.regressions[:_ROWS]
    ]
    lines += [f"- {r.level}: {_text(r.candidate)}, {_text(r.message)}" for r in found.remarks[:_ROWS]]
    for candidate in found.candidates[1:]:
        lines += ["", f"### {_text(headline(found, candidate.name))}", ""]
        lines += ["| probe | outcome | difference | p | |", "|---|---|---|---|---|"]
        lines += [
            f"| {_text(name_of(c))} | {c.outcome} | {_text(difference_of(c))} | {p_of(c)} | {_text(c.message)} |"
            for c in [c for c in found.contrasts if c.candidate == candidate.name][:_ROWS]
        ]
    return "\n".join([*lines, *_table(found)]) + "\n"


def _table(found: Comparison) -> list[str]:
    rows = [
        f"| {_text(name_of(row))} | {_text(row.candidate)} | {with_error(row.value, row.se)} "
        f"| {'best' if row is rows[0] else with_error(row.difference, row.se_difference, signed=True)} "
        f"| {_text(row.unit)} |"
        for rows in claims_in(found.table).values()
        for row in rows
    ]
    if not rows:
        return []
    head = ["", "<details><summary>All of them</summary>", "", "| probe | result | value | to the best | unit |"]
    words = [f"- {_text(s.message)}" for s in found.selections[:_ROWS]]
    return [*head, "|---|---|---|---|---|", *rows[:_ROWS], "", *words, "", "</details>"]


def _text(text: str) -> str:
    return inert(shorten(clean(text), _CELL))
