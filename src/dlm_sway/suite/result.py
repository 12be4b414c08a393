"""What `sway check` found: the shape of its JSON file."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.core.shown import Shown

SCHEMA_VERSION: Final = 1
QUESTIONS: Final = ("sound", "applied", "learned", "on_target", "generalises", "no_harm")
FINDINGS: Final = ("took", "recital", "dose")

_EXIT: Final = {
    Verdict.PASS: ExitCode.PASS,
    Verdict.WARN: ExitCode.PASS,
    Verdict.FAIL: ExitCode.FAIL,
    Verdict.ERROR: ExitCode.ERROR,
    Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Verdict.SKIP: ExitCode.INCONCLUSIVE,
}


class CheckResult(Shown, BaseModel):
    """The answers to the six questions about one adapter.

    Attributes:
        schema_version: changes when a reader of the JSON would have to change.
        adapter: the adapter directory as the user named it.
        base: the base model, as named by the user or the adapter's config.
        verdict: the worst answer; a skip does not count, nor does a finding that is undecided.
        questions: one answer each for `QUESTIONS`, in that order.
        findings: what else was found of `FINDINGS`: which sections took, whether training data is recited, and whether
            another scale is better; only where there was data to find it with.
        next_steps: what a user should do now, most important first.
        probes: the probes that the answers came from.
        provenance: versions, hashes of adapter and data, seeds, dtype, device, N0; enough to run it again.
        timing: seconds by phase and tokens scored. It and the probes' `duration_s` are all that differs between two
            equal runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    adapter: str
    base: str | None
    verdict: Verdict
    questions: dict[str, Question]
    findings: dict[str, Question] = Field(default_factory=dict)
    next_steps: tuple[str, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)
    timing: dict[str, float] = Field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that `sway check` ends with."""
        return exit_code_of(self.verdict)


def exit_code_of(verdict: Verdict) -> ExitCode:
    """Return the exit code of a command whose answer is `verdict`."""
    return _EXIT[verdict]
