"""What a suite file may say, and what is left of it once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from dlm_sway.backends.base import Format
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Category
from dlm_sway.probes.base import Pairs

Dtype: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]

WEIGHTS: Mapping[Category, float] = {
    "baseline": 0.0,
    "adherence": 0.30,
    "attribution": 0.35,
    "calibration": 0.20,
    "ablation": 0.15,
}
"""What a category counts in the composite score; a part of them given by the user leaves the others as they are."""


class Defaults(BaseModel):
    """Settings of the whole suite; each may be left out, and the command line comes before it.

    Attributes:
        seed: of the nulls and of all resampling.
        draws: null adapters to compare with.
        alpha: level of tests against nulls and labels, and of bounds of harm; effect intervals hold 95 % in any case.
        format: how prompts are rendered.
        dtype: what the model computes in, where the model does not say.
        device: where, where the model does not say.
        margins: the margin of each kind that has one, where a probe does not say.
        score_weights: what a category counts in the score; the others keep their weight.
        score_threshold: the score under which a gate closes.
        coverage_threshold: the share of decided weight under which a gate closes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = 0
    draws: int = Field(default=39, ge=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    format: Format = "auto"
    dtype: Dtype = "auto"
    device: str = "auto"
    margins: dict[str, PositiveFloat] = Field(default_factory=dict)
    score_weights: dict[Category, NonNegativeFloat] = Field(default_factory=dict)
    score_threshold: float = Field(default=0.6, ge=0, le=1)
    coverage_threshold: float = Field(default=0.6, ge=0, le=1)


class Models(BaseModel):
    """The two models of a suite.

    Attributes:
        base: what was fine-tuned; a directory or Hub id alone will do.
        ft: the fine-tune; the directory of its adapter alone will do. What it does not say is as for the base.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: ModelSpec
    ft: ModelSpec


class SuiteFile(BaseModel):
    """A suite file, before the probes in it are looked at.

    Attributes:
        version: of this format.
        name: what reports call the suite; the file's name when it says nothing.
        models: the base and its fine-tune.
        defaults: settings of the whole suite.
        data: files by the name that probes call them by.
        suite: the probes, each with its name, its kind and the kind's own keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    name: str = ""
    models: Models
    defaults: Defaults = Field(default_factory=Defaults)
    data: dict[str, Path] = Field(default_factory=dict)
    suite: tuple[dict[str, Any], ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that can be run: read, checked, its files found.

    Attributes:
        path: the file it was read from.
        name: what reports call it.
        base: the base as the file names it.
        adapter: the adapter as the file names it, or None.
        model: what to load.
        defaults: settings of the whole suite.
        pairs: the probes with their specs, in the order of the file.
        data: the files that probes take items from, by name.
        sha256: of the file.
    """

    path: Path
    name: str
    base: str
    adapter: str | None
    model: ModelSpec
    defaults: Defaults
    pairs: Pairs
    data: Mapping[str, Path] = field(default_factory=dict)
    sha256: str = ""
