"""An adapter directory that reads, a data file, and stand-ins for what needs a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dlm_sway.core.result import Question, Verdict
from dlm_sway.suite.result import CheckResult


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE", "DATA", "HELD_OUT", "JSON", "DRAWS", "QUICK", "DEVICE", "DTYPE", "SEED", "BATCH_TOKENS"):
        monkeypatch.delenv(f"SWAY_{name}", raising=False)
    for name in ("CACHE", "RESUME", "TRACE", "QUIET", "OUT", "DEBUG", "MARKDOWN", "HTML", "JUNIT", "FORMAT", "OUTPUT"):
        monkeypatch.delenv(f"SWAY_{name}", raising=False)
    for name in ("FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Return a directory whose config reads."""
    folder = tmp_path / "my-adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "b"}))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data file of two lines."""
    path = tmp_path / "data.txt"
    path.write_text("one\ntwo\n")
    return path


@pytest.fixture
def result() -> Callable[..., CheckResult]:
    """Return a builder of results with one question."""

    def build(verdict: str = "pass", key: str = "learned", **fields: Any) -> CheckResult:
        questions = {key: Question(verdict=Verdict(verdict), message="because")}
        return CheckResult(adapter="runs/a", base="b", verdict=Verdict(verdict), questions=questions, **fields)

    return build


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what puts a module with the given names in the place of one that would load a model."""

    def put(module: str, **names: Any) -> None:
        fake = ModuleType(module)
        for name, value in names.items():
            setattr(fake, name, value)
        monkeypatch.setitem(sys.modules, module, fake)

    return put


@pytest.fixture
def checked(stand_in: Callable[..., None], result: Callable[..., CheckResult]) -> list[dict[str, Any]]:
    """Put a check that passes in the place of the real one; return the calls it gets."""
    calls: list[dict[str, Any]] = []

    def check(adapter: Path, **options: Any) -> CheckResult:
        calls.append({"adapter": adapter, **options})
        return result()

    stand_in("dlm_sway.suite.check", check=check)
    return calls
