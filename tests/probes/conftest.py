"""Runs probes on a dummy, by their specs, as a suite does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.result import ProbeResult
from dlm_sway.core.views import View
from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import Driven, drive

Drive: TypeAlias = Callable[..., Driven]
Run: TypeAlias = Callable[..., ProbeResult]
MakeScores: TypeAlias = Callable[..., Scores]


@pytest.fixture(scope="session")
def driven() -> Drive:
    """Return what drives probes given by their specs; 19 draws and large chunks unless told otherwise."""

    def run(options: Mapping[str, Any] | DummyBackend, *specs: Mapping[str, Any], **settings: Any) -> Driven:
        backend = options if isinstance(options, DummyBackend) else DummyBackend(DummyOptions(**options))
        pairs = tuple(build_probe({"name": spec["kind"], **spec}) for spec in specs)
        return drive(pairs, RunContext(backend=backend, **{"n_draws": 19, "batch_tokens": 1 << 20, **settings}))

    return run


@pytest.fixture(scope="session")
def ran(driven: Drive) -> Run:
    """Return what runs one probe and returns its result."""

    def run(options: Mapping[str, Any] | DummyBackend, **spec: Any) -> ProbeResult:
        settings = spec.pop("settings", {})
        return driven(options, spec, **settings).results[0]

    return run


@pytest.fixture(scope="session")
def scores_of() -> MakeScores:
    """Return a maker of answers: values float64[V, P] of one reducer over items of the given numbers of tokens."""

    def make(tokens: list[int], clusters: list[str] | None = None, **values: Any) -> Scores:
        names = clusters or [str(i) for i in range(len(tokens))]
        items = tuple(TextItem("", f"text {i}", name, f"item {i}") for i, name in enumerate(names))
        offsets = np.cumsum([0, *tokens]).astype(np.int64)
        grids = {name: np.asarray(grid, dtype=np.float64) for name, grid in values.items()}
        n_views = next(iter(grids.values())).shape[0]
        return Scores(items, (View(),) * n_views, offsets, grids, np.full(offsets[-1], -2.0))

    return make
