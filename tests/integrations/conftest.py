"""A suite on the dummy, and its result, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from dlm_sway.core.result import SuiteResult
from dlm_sway.suite.run import run

MakeSuite: TypeAlias = Callable[..., Path]

LEARNED: dict[str, Any] = {"name": "learned", "kind": "delta_kl", "prompts": {"data": "train"}}
HARMLESS: dict[str, Any] = {"name": "harmless", "kind": "external_perplexity"}
NOISE: dict[str, Any] = {"strength": 0.1, "adapter_seed": 3}


@pytest.fixture(scope="session")
def make_suite(language: Callable[..., tuple[str, ...]]) -> MakeSuite:
    """Return what writes a suite of two probes into a folder; `noise` makes its adapter one that learned nothing."""

    def of(folder: Path, *, noise: bool = False, probes: tuple[dict[str, Any], ...] = (LEARNED, HARMLESS)) -> Path:
        (folder / "train.txt").write_text("\n".join(language(12)))
        healthy = {"adapter": "trained", "towards": list(language(12)), "strength": 2.0}
        document = {
            "version": 1,
            "models": {"base": {"kind": "dummy", "base": "tiny"}, "ft": {"options": NOISE if noise else healthy}},
            "defaults": {"draws": 19},
            "data": {"train": "train.txt"},
            "suite": list(probes),
        }
        path = folder / "sway.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return of


@pytest.fixture(scope="session")
def result(make_suite: MakeSuite, tmp_path_factory: pytest.TempPathFactory) -> SuiteResult:
    """Return what the suite finds of an adapter that learned."""
    return run(make_suite(tmp_path_factory.mktemp("healthy")))


@pytest.fixture(scope="session")
def noise_result(make_suite: MakeSuite, tmp_path_factory: pytest.TempPathFactory) -> SuiteResult:
    """Return what the suite finds of an adapter that learned nothing."""
    return run(make_suite(tmp_path_factory.mktemp("noise"), noise=True))
