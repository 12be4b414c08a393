"""What a probe found, on one line: for test output, trackers and training logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlm_sway.core.result import ProbeResult


def probe_line(found: ProbeResult) -> str:
    """Return `name (kind): verdict, effect [interval]: message`, safe to print."""
    from dlm_sway.report.numbers import effect, interval
    from dlm_sway.report.text import clean

    ends = found.ci_95 or ()
    size = effect(found.raw, clean(found.evidence.get("unit") or ""), like=ends)
    parts = (size, interval(found.ci_95, like=() if found.raw is None else (found.raw,)))
    measured = " ".join(part for part in parts if part)
    head = f"{clean(found.name)} ({clean(found.kind)}): {found.verdict}" + (f", {measured}" if measured else "")
    return f"{head}: {clean(found.message)}" if found.message else head
