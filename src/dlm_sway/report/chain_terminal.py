"""A walk along the chain on a terminal: a line a finding, the fault and what to do below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dlm_sway.report.marks import mark
from dlm_sway.report.text import clean

if TYPE_CHECKING:
    from rich.console import Console

    from dlm_sway.chain.result import ChainResult, Finding


def print_chain(result: ChainResult, console: Console) -> None:
    """Print the links in order."""
    console.print(Text.assemble(mark(result.verdict, console, loud=True), "  ", clean(result.adapter)), soft_wrap=True)
    console.print(Text(f"base {clean(result.base)}", style="dim"), soft_wrap=True)
    for link in result.links:
        console.print()
        title = Text.assemble(mark(link.verdict, console), "  ", (link.name, "bold"), "  ", clean(link.what))
        console.print(title, soft_wrap=True)
        for finding in link.findings:
            _print_finding(finding, console)
    for name in result.not_walked:
        console.print()
        console.print(Text(f"{name} was not looked at: --all goes on behind a broken link", style="dim"))


def _print_finding(finding: Finding, console: Console) -> None:
    cause = f"{clean(finding.cause)}: " if finding.cause else ""
    line = Text.assemble("  ", mark(finding.verdict, console), f"  {finding.step}  ", (cause, "bold"))
    line.append(clean(finding.message))
    if finding.interval is not None:
        line.append(f" [{finding.interval[0]:.2f}, {finding.interval[1]:.2f}]", style="dim")
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"      {clean(finding.remedy)}"), soft_wrap=True)
