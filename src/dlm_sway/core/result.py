"""Results: what a probe, a question and a suite say, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from dlm_sway.core.shown import Shown


class Verdict(StrEnum):
    """The answer to one claim. Absence of evidence never passes."""

    PASS = "pass"  # noqa: S105 (a verdict, not a password)
    FAIL = "fail"
    WARN = "warn"
    INCONCLUSIVE = "inconclusive"
    SKIP = "skip"
    ERROR = "error"


_WORST_FIRST = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.PASS)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict in the order error, fail, inconclusive, warn, pass; skips do not count.

    With nothing but skips the answer is SKIP: nothing was asked, so nothing passed.
    """
    seen = set(verdicts)
    return next((v for v in _WORST_FIRST if v in seen), Verdict.SKIP)


Interval: TypeAlias = tuple[float, float]
Category: TypeAlias = Literal["baseline", "adherence", "attribution", "calibration", "ablation"]


class ProbeResult(BaseModel):
    """What one probe found.

    Attributes:
        name: the probe's name in its suite; unique there.
        kind: the registered kind.
        verdict: the answer to the probe's claim.
        score: in [0, 1], for the composite; 0 when not significant or an error, None when left out.
        raw: the probe's effect, in its own unit (see `evidence["unit"]`).
        z_score: an extrapolated standard score against the null; never decides a verdict.
        base_value: the statistic of the base, where it has one of its own.
        ft_value: the statistic of the fine-tune, where it has one of its own.
        evidence: everything a reader needs to re-judge the claim; JSON values only.
        message: one sentence: what was found, against what, and what to do next.
        duration_s: seconds of wall time spent on this probe alone.
        ci_95: 95 % interval of `raw` over inputs, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    verdict: Verdict
    score: float | None = None
    raw: float | None = None
    z_score: float | None = None
    base_value: float | None = None
    ft_value: float | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)
    message: str = ""
    duration_s: float = 0.0
    ci_95: Interval | None = None


class Question(BaseModel):
    """The answer to one of the questions of `sway check`.

    Attributes:
        verdict: the answer.
        effect: size of the effect in `unit`; None when nothing could be measured.
        unit: unit of `effect`, such as `nat/token`.
        interval: 95 % interval of `effect` over inputs, or None.
        p: exact p-value against `null`, adjusted for the family of the suite, or None.
        null: what the number was compared with, such as `rotation (N1), 39 draws` or `margin 0.05 nat/token`.
        message: one sentence for a reader.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    effect: float | None = None
    unit: str | None = None
    interval: Interval | None = None
    p: float | None = None
    null: str | None = None
    message: str = ""


class SuiteResult(Shown, BaseModel):
    """What a suite of probes found on one adapter: the shape of the JSON file that `sway run` writes.

    Attributes:
        schema_version: changes when a reader of the JSON would have to change.
        name: what the suite is called; its file's name without the ending when it says nothing.
        base: the base model as the suite names it.
        adapter: the adapter directory as the suite names it, or None.
        score: the composite in [0, 1], or None when nothing was scored.
        components: the score of each category that has one.
        coverage: share of the score's weight that was decided, in [0, 1]; skips and inconclusive answers lower it.
        band: the score in a word; `noise` for an adapter that is no more than its nulls.
        next_steps: what a user should do now, most important first.
        probes: one result a probe, in the order of the suite.
        provenance: versions, hashes, seeds, dtype, device, N0; enough to run it again.
        timing: seconds by phase and tokens scored; with the probes' `duration_s` all that differs between equal runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    name: str = ""
    base: str | None = None
    adapter: str | None = None
    score: float | None = None
    components: dict[Category, float] = Field(default_factory=dict)
    coverage: float = 0.0
    band: str | None = None
    next_steps: tuple[str, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)
    timing: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _verdict_follows_from_the_probes(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if k != "verdict"} if isinstance(data, Mapping) else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the probes; a skip does not count. A verdict in a file is never believed."""
        return worst(p.verdict for p in self.probes)


def finite_or_none(value: float | None) -> float | None:
    """Return `value` as a float, or None where strict JSON has no word for it (NaN, infinities)."""
    return float(value) if value is not None and math.isfinite(value) else None
