"""What a walk along the chain found: a finding a step, steps a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from dlm_sway.core.result import Interval, Verdict, worst
from dlm_sway.core.shown import Shown

SCHEMA_VERSION: Final = 1

LinkName: TypeAlias = Literal["adapter", "merged", "gguf", "served"]
Step: TypeAlias = Literal["static", "tokens", "behaviour", "stop"]


class Finding(BaseModel):
    """What one step says of one link.

    Attributes:
        step: how it was looked at.
        verdict: the answer.
        cause: the fault by name; None where there is none, or none is known.
        message: one sentence.
        remedy: what to do.
        effect_left: share of the adapter's effect that is left; None where it was not measured.
        interval: 95 % interval of it over texts, or None.
        lam_hat: the scale of the adapter that explains the link best: 1 is as trained, 0 not applied.
        evidence: numbers behind it; JSON values only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Step
    verdict: Verdict
    cause: str | None = None
    message: str = ""
    remedy: str = ""
    effect_left: float | None = None
    interval: Interval | None = None
    lam_hat: float | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)


class Link(BaseModel):
    """One link of the chain.

    Attributes:
        name: which.
        what: its file or address.
        findings: a step each, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: LinkName
    what: str
    findings: tuple[Finding, ...]

    @model_validator(mode="before")
    @classmethod
    def _verdict_follows_from_the_findings(cls, data: Any) -> Any:
        return _without_verdict(data)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The worst of its findings; a skip does not count."""
        return worst(f.verdict for f in self.findings)

    @property
    def fault(self) -> Finding | None:
        """The first finding that fails or errs, or None."""
        return next((f for f in self.findings if f.verdict in (Verdict.FAIL, Verdict.ERROR)), None)


class ChainResult(Shown, BaseModel):
    """The walk.

    Attributes:
        schema_version: changes when a reader of the JSON would have to change.
        adapter: as the user named it.
        base: likewise.
        links: in order; the walk ends at the first that broke unless told otherwise.
        not_walked: links that were given and not looked at.
        provenance: versions, margin, floor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    adapter: str
    base: str
    links: tuple[Link, ...]
    not_walked: tuple[LinkName, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _verdict_follows_from_the_links(cls, data: Any) -> Any:
        return _without_verdict(data)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The worst of the links."""
        return worst(link.verdict for link in self.links)


def _without_verdict(data: Any) -> Any:
    """Return what a file holds without its verdict, which is never believed."""
    return {k: v for k, v in data.items() if k != "verdict"} if isinstance(data, Mapping) else data
