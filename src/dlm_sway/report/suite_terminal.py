"""A suite's report on a terminal: verdict and score, a line a claim, what to do next."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rich.console import Console
from rich.text import Text

from dlm_sway.chain.result import ChainResult
from dlm_sway.core.result import SuiteResult
from dlm_sway.report.chain_terminal import print_chain
from dlm_sway.report.document import Claim, Document, Result, Score, document_of
from dlm_sway.report.marks import mark
from dlm_sway.report.terminal import print_check, print_rows, print_steps, print_work
from dlm_sway.report.text import shorten

_WIDE: Final = 140
_NAME: Final = 40
_LEAST: Final = 6  # of a probe's name, however long the claim's is
_NARROW_SHARE: Final = 3  # a name gets a third of a narrow terminal, and the numbers the rest


def print_result(result: Result, console: Console) -> None:
    """Print the report of a check, a suite or a walk along the chain."""
    if isinstance(result, ChainResult):
        print_chain(result, console)
    elif isinstance(result, SuiteResult):
        print_suite(result, console)
    else:
        print_check(result, console)


def print_suite(result: SuiteResult, console: Console) -> None:
    """Print the report of a suite."""
    document = document_of(result)
    headline = Text.assemble(mark(document.verdict, console, loud=True), "  ", f"{document.title}: {document.summary}")
    console.print(headline, soft_wrap=True)
    for line in (document.subject, score_line(document.score)):
        if line:
            console.print(Text(line, style="dim"), soft_wrap=True)
    _print_claims(document, console)
    print_steps(document.steps, console)
    print_work(document.work, console)


def score_line(score: Score | None) -> str:
    """Return `score 0.64 (partial), 78 % of it decided: adherence 0.81, ...`; empty when nothing was scored."""
    if score is None or score.value is None:
        return ""
    band = f" ({score.band})" if score.band else ""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in score.components)
    return f"score {score.value:.2f}{band}, {100 * score.coverage:.0f} % of it decided" + (
        f": {parts}" if parts else ""
    )


def _print_claims(document: Document, console: Console) -> None:
    width = _NAME if console.width >= _WIDE else min(_NAME, max(console.width // _NARROW_SHARE, 10))
    print_rows([replace(c.row, question=_fitted(c, document, width)) for c in document.claims], console)


def _fitted(claim: Claim, document: Document, width: int) -> str:
    """Return a claim's name in `width` characters: the probe's is cut first, since its claims share it."""
    probe = "" if claim.probe is None else document.probes[claim.probe].name
    own = claim.row.question.removeprefix(probe)
    if not own or len(claim.row.question) <= width:
        return shorten(claim.row.question, width)
    return shorten(f"{shorten(probe, max(width - len(own), _LEAST))}{own}", width)
