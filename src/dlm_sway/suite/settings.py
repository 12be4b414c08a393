"""How a suite is run: what its file says, with what the caller says laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

from pydantic import TypeAdapter, ValidationError

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Category
from dlm_sway.stats.power import draws_needed, require_draws
from dlm_sway.suite.faults import did_you_mean
from dlm_sway.suite.score import weights_with
from dlm_sway.suite.spec import WEIGHTS, Suite

ROUNDS: Final = (19, 39, 99)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a caller says of a run; None leaves the word to the suite.

    Attributes:
        only: names of the probes that run; empty for all.
        skip: names of those that do not.
        limit: read at most so many items of each list.
        n_draws: null adapters to compare with.
        seed: of the nulls and of all resampling.
        fast: try fewer draws first, and stop where no verdict can change.
        weights: what a category counts in the score; the others keep their weight.
        device: where to compute.
        dtype: what to compute in.
        batch_tokens: view-tokens a pass.
        cache: folder where results outlive the run; None keeps nothing.
        reuse: whether what earlier runs left there is used.
        trace: file that gets a JSON line a pass.
        allow_custom: whether the suite may name code to import as its backend; only a user's own word may set it.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    limit: int | None = None
    n_draws: int | None = None
    seed: int | None = None
    fast: bool = False
    weights: Mapping[Category, float] = field(default_factory=dict)
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    cache: Path | None = None
    reuse: bool = True
    trace: Path | None = None
    allow_custom: bool = False

    def draws(self, suite: Suite) -> int:
        """Return the number of draws.

        Raises:
            BadInputError: too few to reach significance.
        """
        n_draws = suite.defaults.draws if self.n_draws is None else self.n_draws
        require_draws(n_draws, alpha=suite.defaults.alpha)
        return n_draws

    def rounds(self, suite: Suite) -> tuple[int, ...]:
        """Return the numbers of draws to try first; each could reach significance."""
        fewest = draws_needed(suite.defaults.alpha)
        return tuple(m for m in ROUNDS if fewest <= m < self.draws(suite)) if self.fast else ()

    def model(self, suite: Suite) -> ModelSpec:
        """Return what to load.

        Raises:
            BadInputError: a dtype that there is not.
        """
        own = {key: value for key, value in (("device", self.device), ("dtype", self.dtype)) if value is not None}
        try:
            return ModelSpec.model_validate({**suite.model.model_dump(), **own})
        except ValidationError as e:
            raise BadInputError(e.errors()[0]["msg"], where="--dtype") from None

    def score_weights(self, suite: Suite) -> dict[Category, float]:
        """Return the weight of each category."""
        return weights_with({**suite.defaults.score_weights, **self.weights})


class SettingsWords(TypedDict, total=False):
    """The fields of `Settings`, as keywords of `run`."""

    only: tuple[str, ...]
    skip: tuple[str, ...]
    limit: int | None
    n_draws: int | None
    seed: int | None
    fast: bool
    weights: Mapping[Category, float]
    device: str | None
    dtype: str | None
    batch_tokens: int | None
    cache: Path | None
    reuse: bool
    trace: Path | None
    allow_custom: bool


def read_weights(text: str | None) -> dict[Category, float]:
    """Return the weights of a text such as `adherence=0.5,calibration=0.5`.

    Raises:
        BadInputError: a part is no `category=number`, or there is no such category.
    """
    found: dict[str, Any] = {}
    for part in (p.strip() for p in (text or "").split(",")):
        name, mark, value = part.partition("=")
        if not part:
            continue
        if name.strip() not in WEIGHTS:
            hint = did_you_mean(name.strip(), tuple(WEIGHTS), noun="categories")
            raise BadInputError(f"no category is called {name.strip()!r}", where="--weights", remedy=hint)
        found[name.strip()] = _weight(value) if mark else None
        if found[name.strip()] is None:
            what = f"{part!r} gives no weight"
            raise BadInputError(what, where="--weights", remedy="write category=number, 0 or more")
    return TypeAdapter(dict[Category, float]).validate_python(found)


def _weight(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
