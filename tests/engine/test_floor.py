"""N0: the base against itself in another batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models import ARCHITECTURES, backend_of, base_of, lora, open_backend, save_adapter

from dlm_sway.engine.floor import measure_floor
from dlm_sway.engine.run import Engine


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_floor_of_fp32_is_tiny(arch: str) -> None:
    floor = measure_floor(Engine(backend_of(arch, "qv")))
    assert 0 <= floor.median_kl <= floor.max_kl < 1e-6
    assert 0 <= floor.max_logprob < 1e-3


@pytest.mark.parametrize("kind", ["qv", "saved-head", "prompt"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_in_bf16_the_floor_also_holds_what_rounding_does(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind, "bf16")
    before = {n: p.detach().clone() for n, p in backend.model.named_parameters()}
    floor = measure_floor(Engine(backend))
    assert floor.dtype == "bfloat16"
    assert floor.rounding is not None
    assert 1e-6 < floor.rounding.mean_kl <= floor.rounding.max_kl < 0.1
    assert 1e-3 < floor.rounding.max_logprob < 1.0
    assert floor.kl == max(floor.max_kl, floor.rounding.mean_kl)
    assert all(torch.equal(p, before[n]) and p.dtype == before[n].dtype for n, p in backend.model.named_parameters())


def test_in_fp32_there_is_nothing_to_compare_with() -> None:
    floor = measure_floor(Engine(backend_of("llama", "qv")))
    assert (floor.dtype, floor.rounding) == ("float32", None)
    assert floor.kl == floor.max_kl


class _Casts(torch.nn.Module):
    """A module that insists on 16 bits."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(args[0].to(torch.bfloat16), **kwargs)


def test_a_model_that_casts_by_itself_has_no_such_figure(tmp_path: Path) -> None:
    base = base_of("llama")
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora()), dtype="bf16")
    core = backend.model.get_base_model().model
    core.layers[0].mlp = _Casts(core.layers[0].mlp)
    floor = measure_floor(Engine(backend))
    assert floor.rounding is None
    assert {p.dtype for p in core.parameters() if not p.requires_grad} >= {torch.bfloat16}


@pytest.mark.parametrize("kind", ["saved-head", "bias-all", "prompt"])
def test_the_floor_is_that_of_the_base_whatever_the_adapter(kind: str) -> None:
    assert measure_floor(Engine(backend_of("llama", kind))).max_kl < 1e-6


def test_the_floor_is_the_same_twice() -> None:
    engine = Engine(backend_of("qwen2", "all-linear"))
    assert measure_floor(engine) == measure_floor(engine)
