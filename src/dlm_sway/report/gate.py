"""What a gate found, as every renderer says it: open or closed, and by what.

A suite can pass and its gate be closed, by a score or by too little that was decided. A report that `sway gate` leaves
behind is read where its exit code is not seen, so it says the one before the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import Verdict
from dlm_sway.report.text import clean
from dlm_sway.suite.gate import Gate

_VERDICTS: Final = {ExitCode.PASS: Verdict.PASS, ExitCode.FAIL: Verdict.FAIL, ExitCode.ERROR: Verdict.ERROR}


@dataclass(frozen=True, slots=True)
class BreachView:
    """One thing that closes a gate: its sort, the probe (or `score` or `coverage`), and what was found."""

    why: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class GateView:
    """Whether a gate is open, as text that is safe to print.

    Attributes:
        verdict: PASS when it is open, else that of the worst thing that closes it.
        headline: `the gate is closed by 2 things`, or that it is open and at which score; and whether the run left a
            part of the suite out.
        breaches: what closes it, worst first.
    """

    verdict: Verdict
    headline: str
    breaches: tuple[BreachView, ...]


def gate_view(found: Gate) -> GateView:
    """Return what a gate found, as text."""
    breaches = tuple(BreachView(breach.why, clean(breach.name), clean(breach.message)) for breach in found.breaches)
    return GateView(_VERDICTS.get(found.exit_code, Verdict.INCONCLUSIVE), _headline(found), breaches)


def _headline(found: Gate) -> str:
    part = f", for a part of the suite ({', '.join(found.part)})" if found.part else ""
    if n := len(found.breaches):
        return f"the gate is closed by {n} thing{'s' if n > 1 else ''}{part}"
    reached = "" if found.score.score is None else f": score {found.score.score:.2f} of {found.threshold:.2f} needed"
    return f"the gate is open{reached}{part}"
