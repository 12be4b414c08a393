"""Adds up the lines of a trace, so that one sees where the time went. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.trace import TraceLine

Alike: TypeAlias = tuple[str, int, tuple[str, ...]]
"""Path, number of views, and reducers: what makes passes alike."""


@dataclass(slots=True)
class Group:
    """Passes added up.

    Attributes:
        passes: how many.
        ms: milliseconds that they took.
        tokens: view-tokens read.
        scored: positions scored, each counted once a view.
        hit: positions that the cache knew, each counted once a view.
    """

    passes: int = 0
    ms: float = 0.0
    tokens: int = 0
    scored: int = 0
    hit: int = 0

    def add(self, line: TraceLine) -> None:
        """Count one more."""
        self.passes += line.tokens > 0
        self.ms += line.ms
        self.tokens += line.tokens
        self.scored += line.scored
        self.hit += line.hit


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """Where the time of a run went.

    Attributes:
        groups: passes that are alike; those that took longest first.
        probes: milliseconds by probe, longest first; a pass for several probes counts in equal parts.
        total: all passes.
        run_s: seconds from the start of the run to its last line.
        bad: numbers of the lines that are no trace, from 1.
    """

    groups: dict[Alike, Group]
    probes: dict[str, float]
    total: Group = field(default_factory=Group)
    run_s: float = 0.0
    bad: tuple[int, ...] = ()


def read_trace(path: Path) -> TraceSummary:
    """Return the summary of a trace file; lines that are no trace are skipped and named.

    Raises:
        BadInputError: the file cannot be read, or no line of it is a trace.
    """
    try:
        raw = path.read_bytes().splitlines()
    except OSError as fault:
        what = f"the trace cannot be read: {fault.strerror}"
        raise BadInputError(what, where=path, remedy="make one with `sway check ADAPTER --trace FILE`") from fault
    lines = {number: _parsed(line) for number, line in enumerate(raw, start=1) if line.strip()}
    good = [line for line in lines.values() if line is not None]
    if not good:
        raise BadInputError("holds no line of a trace", where=path, remedy="name the file given to --trace")
    return summarise(good, bad=[number for number, line in lines.items() if line is None])


def summarise(lines: Iterable[TraceLine], *, bad: Sequence[int] = ()) -> TraceSummary:
    """Return lines added up."""
    groups: dict[Alike, Group] = defaultdict(Group)
    probes: dict[str, float] = defaultdict(float)
    total, run_s = Group(), 0.0
    for line in lines:
        groups[line.path, line.views, tuple(sorted(line.reducers))].add(line)
        total.add(line)
        run_s = max(run_s, line.t)
        for probe in line.probes:
            probes[probe] += line.ms / len(line.probes)
    longest = sorted(groups.items(), key=lambda item: -item[1].ms)
    return TraceSummary(dict(longest), dict(sorted(probes.items(), key=lambda p: -p[1])), total, run_s, tuple(bad))


def _parsed(line: bytes) -> TraceLine | None:
    try:
        return TraceLine.model_validate_json(line)
    except ValidationError:
        return None
