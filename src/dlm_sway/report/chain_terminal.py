"""A walk along the chain on a terminal: a table of links, then a line a finding with what to do below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dlm_sway.report.chain_document import chain_document
from dlm_sway.report.layout import print_trimmed
from dlm_sway.report.marks import mark
from dlm_sway.report.text import clean

if TYPE_CHECKING:
    from rich.console import Console

    from dlm_sway.chain.result import ChainResult, Finding
    from dlm_sway.report.document import Document


def print_chain(result: ChainResult, console: Console) -> None:
    """Print the answer, the table of links, then the links in order."""
    document = chain_document(result)
    headline = Text.assemble(mark(result.verdict, console, loud=True), "  ", f"{document.title}: {document.summary}")
    console.print(headline, soft_wrap=True)
    console.print(Text(document.subject, style="dim"), soft_wrap=True)
    console.print()
    print_trimmed(_table(document, console), console, indent=2)
    for link in result.links:
        console.print()
        title = Text.assemble(mark(link.verdict, console), "  ", (link.name, "bold"), "  ", clean(link.what))
        console.print(title, soft_wrap=True)
        for finding in link.findings:
            _print_finding(finding, console)


def _table(document: Document, console: Console) -> Table:
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("link", "", "effect left"):
        table.add_column(title, no_wrap=True)
    table.add_column("what to do", overflow="fold")
    for link in document.links:
        todo = ": ".join(part for part in (link.cause, link.remedy) if part)
        table.add_row(Text(link.name), mark(link.verdict, console), Text(link.shown), Text(todo))
    return table


def _print_finding(finding: Finding, console: Console) -> None:
    cause = f"{clean(finding.cause)}: " if finding.cause else ""
    line = Text.assemble("  ", mark(finding.verdict, console), f"  {finding.step}  ", (cause, "bold"))
    line.append(clean(finding.message))
    if finding.interval is not None:
        line.append(f" [{finding.interval[0]:.2f}, {finding.interval[1]:.2f}]", style="dim")
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"      {clean(finding.remedy)}"), soft_wrap=True)
