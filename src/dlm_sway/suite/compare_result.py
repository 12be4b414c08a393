"""What a comparison of results says: the shape of the JSON that `sway compare` and `sway diff` write."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import Interval, Verdict
from dlm_sway.probes.claims import Better

Outcome: TypeAlias = Literal["better", "worse", "differs", "no decided difference", "not comparable"]
Level: TypeAlias = Literal["blocks", "caution", "note"]
Why: TypeAlias = Literal["vanished", "error", "pass to fail", "worse"]

COMPARE_VERSION: Final = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Record):
    """One of the results that are compared.

    Attributes:
        name: what the comparison calls it.
        adapter: the adapter as its result names it.
        base: the base model as its result names it.
        verdict: of the result.
        score: of the result.
    """

    name: str
    adapter: str | None = None
    base: str | None = None
    verdict: Verdict
    score: float | None = None


class Remark(_Record):
    """How a result came about otherwise than the reference.

    Attributes:
        level: `blocks` where numbers cannot be set side by side, `caution` where they can with care, `note` else.
        candidate: whose.
        what: what differs, such as `seed`.
        message: both, in a sentence.
    """

    level: Level
    candidate: str
    what: str
    message: str


class Contrast(_Record):
    """One claim of one probe: a candidate against the reference.

    Attributes:
        candidate: who is compared with the reference.
        probe: name of the probe.
        kind: its kind.
        claim: which of its claims.
        outcome: `differs` where neither way is better.
        unit: of all values here.
        better: which way is better.
        reference: value of the reference, on the shared items where they are paired.
        value: that of the candidate.
        difference: candidate minus reference.
        interval: two-sided interval of it at 1 less the comparison's `alpha`, so 95 % at 0.05; not adjusted for the
            number of comparisons.
        se: standard error of it.
        p: two-sided p-value of no difference.
        p_adjusted: the same, after Benjamini-Hochberg over all contrasts of the comparison.
        paired: whether it is over shared items; None where nothing was compared.
        n_shared: items that both read.
        n_reference: items of the reference.
        n_candidate: items of the candidate.
        minimum: the smallest difference that matters, as the probe declared it.
        method: how interval and p were made.
        message: what was found and, where it is not decided, what would decide.
    """

    candidate: str
    probe: str
    kind: str
    claim: str
    outcome: Outcome
    unit: str | None = None
    better: Better = None
    reference: float | None = None
    value: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    se: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    paired: bool | None = None
    n_shared: int = 0
    n_reference: int = 0
    n_candidate: int = 0
    minimum: float | None = None
    method: str = ""
    message: str = ""


class Standing(_Record):
    """A row of the table: one candidate among all, on the items that all of them read.

    Attributes:
        probe: name of the probe.
        claim: which of its claims.
        candidate: whose row; rows of a claim stand best first.
        unit: of all values here.
        value: the candidate's value.
        se: standard error of it, over items.
        difference: to the best row, 0 for the best itself.
        se_difference: standard error of the difference.
        n_items: items that all of them read.
    """

    probe: str
    claim: str
    candidate: str
    unit: str
    value: float
    se: float | None
    difference: float
    se_difference: float | None
    n_items: int


class Selection(_Record):
    """Whether the best of a claim is ahead of the others by more than the choice of the best explains.

    Attributes:
        probe: name of the probe.
        claim: which of its claims.
        best: the candidate with the best value.
        lead: by how much it is ahead of the mean of all.
        by_chance: the lead that the best of as many equal ones stays under in 95 % of cases.
        artefact: whether the lead is no more than that.
        message: the same in a sentence.
    """

    probe: str
    claim: str
    best: str
    lead: float
    by_chance: float
    artefact: bool
    message: str


class Regression(_Record):
    """Something that was right and no longer is.

    Attributes:
        candidate: whose.
        probe: name of the probe.
        claim: which of its claims, or None for the probe as a whole.
        why: what became of it.
        message: the same in a sentence.
    """

    candidate: str
    probe: str
    claim: str | None = None
    why: Why
    message: str


class Comparison(_Record):
    """Results side by side.

    Attributes:
        schema_version: changes when a reader of the JSON would have to change.
        reference: name of the result that the others are compared with.
        alpha: level of every decision, after adjustment.
        candidates: all results, the reference first.
        remarks: how they came about differently.
        contrasts: every claim of every candidate against the reference.
        table: every claim that can be set side by side for all of them.
        selections: for three or more, whether the best is more than the choice of the best.
        regressions: what was right and no longer is.
    """

    schema_version: int = COMPARE_VERSION
    reference: str
    alpha: float
    candidates: tuple[Candidate, ...]
    remarks: tuple[Remark, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    table: tuple[Standing, ...] = ()
    selections: tuple[Selection, ...] = ()
    regressions: tuple[Regression, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether at least one claim of each candidate could be set beside the reference's."""
        able = {c.candidate for c in self.contrasts if c.outcome != "not comparable"}
        return all(c.name in able for c in self.candidates[1:])

    def gate(self) -> ExitCode:
        """Return how a command ends that fails on regressions; where nothing could be compared it is inconclusive."""
        if self.regressions:
            return ExitCode.FAIL
        return ExitCode.PASS if self.comparable else ExitCode.INCONCLUSIVE
