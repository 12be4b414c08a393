"""N0: the base against itself in another batch."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models import ARCHITECTURES, backend_of

from dlm_sway.engine.floor import measure_floor
from dlm_sway.engine.run import Engine


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_floor_of_fp32_is_tiny(arch: str) -> None:
    floor = measure_floor(Engine(backend_of(arch, "qv")))
    assert 0 <= floor.median_kl <= floor.max_kl < 1e-6
    assert 0 <= floor.max_logprob < 1e-3


def test_the_floor_of_bf16_is_finite() -> None:
    floor = measure_floor(Engine(backend_of("llama", "qv", "bf16")))
    assert 0 <= floor.max_kl < 1.0
    assert np.isfinite(floor.max_logprob)


@pytest.mark.parametrize("kind", ["saved-head", "bias-all", "prompt"])
def test_the_floor_is_that_of_the_base_whatever_the_adapter(kind: str) -> None:
    assert measure_floor(Engine(backend_of("llama", kind))).max_kl < 1e-6


def test_the_floor_is_the_same_twice() -> None:
    engine = Engine(backend_of("qwen2", "all-linear"))
    assert measure_floor(engine) == measure_floor(engine)
