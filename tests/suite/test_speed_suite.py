"""What `suite_ratio` of the speed benchmark compares: one suite, once in shared passes and once in a loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.models import byte_tokenizer, lora, open_backend, save_adapter, save_base

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(SPEED))
    import suite as module

    yield module
    sys.modules.pop("suite")


@pytest.fixture
def backend(tmp_path: Path) -> Any:
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer(), max_position_embeddings=512)
    return open_backend(base, save_adapter(base, tmp_path / "adapter", lora()))


def test_it_asks_eight_things_of_the_model_beside_calibration(suite: ModuleType) -> None:
    kinds = [spec.kind for _, spec in suite.eight(suite.DRAWS)]
    assert kinds[0] == "null_adapter"
    assert len(set(kinds[1:])) == len(kinds[1:]) == 8


def test_the_loop_scores_each_prompt_of_each_probe_under_each_view(
    suite: ModuleType, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = suite.as_a_loop(backend)
    scored: list[str] = []
    monkeypatch.setattr(suite, "_one_by_one", lambda opened, _: scored.append(opened.id))
    for half in halves:
        half()
    nulls = {id_ for id_ in scored if "rotation" in id_}
    assert len(nulls) >= suite.FEW
    assert sum("base" in id_ for id_ in scored) > 8
