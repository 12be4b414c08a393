from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.core.result import Verdict

PREFIX = "base_model.model."


def found(inspection: Any, code: str) -> Any:
    """The one fault of this code."""
    faults = [fault for fault in inspection.faults if fault.code == code]
    assert len(faults) == 1, [fault.code for fault in inspection.faults]
    return faults[0]


def b_of(module: str) -> Any:
    return f"{PREFIX}{module}.lora_B.weight"


def test_an_alpha_a_hundred_times_too_large_fails(inspected: Any) -> None:
    inspection = inspected(lora_alpha=800)
    fault = found(inspection, "scale_absurd")
    assert fault.severity == "fail"
    assert "scale of 200" in fault.message
    assert inspection.verdict is Verdict.FAIL


def test_an_odd_scale_that_the_factors_make_up_for_is_a_warning(kit: Any, inspected: Any) -> None:
    tensors = {name: value / 100 if ".lora_B." in name else value for name, value in kit.tensors().items()}
    inspection = inspected(tensors, lora_alpha=800)
    assert found(inspection, "scale_absurd").severity == "warn"
    assert inspection.verdict is Verdict.WARN


def test_an_absurd_scale_fails_where_the_base_cannot_tell(kit: Any) -> None:
    inspection = inspect_adapter(kit.adapter(lora_alpha=800, base_model_name_or_path=None))
    assert found(inspection, "scale_absurd").severity == "fail"


def test_a_tiny_scale_that_leaves_nothing_of_the_change_fails(inspected: Any) -> None:
    assert found(inspected(lora_alpha=0.001), "scale_absurd").severity == "fail"


@pytest.mark.parametrize("alpha", [0, -8])
def test_a_scale_that_switches_off_or_turns_round_fails(inspected: Any, alpha: float) -> None:
    assert "switches the adapter off" in found(inspected(lora_alpha=alpha), "scale_absurd").message


def test_a_change_larger_than_the_weights_fails(kit: Any, inspected: Any) -> None:
    tensors = {name: value * 200 if ".lora_B." in name else value for name, value in kit.tensors().items()}
    fault = found(inspected(tensors), "change_too_large")
    assert fault.severity == "fail"
    assert set(fault.tensors) == set(kit.modules)


def test_one_module_that_outgrew_its_weight_is_a_warning(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors()
    tensors[b_of("model.layers.0.self_attn.v_proj")] *= 40
    fault = found(inspected(tensors), "change_too_large")
    assert fault.severity == "warn"
    assert fault.tensors == ("model.layers.0.self_attn.v_proj",)
