from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.core.result import Verdict

PREFIX = "base_model.model."
OVERRIDDEN = "model.layers.0.self_attn.v_proj"


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


def overriding(kit: Any, base: Path, times: float) -> Any:
    """Tensors whose change of one module is of one direction, `times` as strong as the strongest of its weight."""
    tensors = kit.tensors()
    a, b = tensors[f"{PREFIX}{OVERRIDDEN}.lora_A.weight"], tensors[b_of(OVERRIDDEN)]
    a[1:], b[:, 1:] = 0, 0
    strongest = np.linalg.norm(load_file(base / "model.safetensors")[f"{OVERRIDDEN}.weight"], 2)
    b *= times * strongest / (2 * np.linalg.norm(a) * np.linalg.norm(b))  # the scale is 2
    return tensors


@pytest.mark.parametrize(("times", "is_named"), [(0.98, False), (1.02, True)])
def test_a_change_stronger_than_the_weight_in_any_direction_is_a_warning(
    kit: Any, inspected: Any, times: float, is_named: bool
) -> None:
    """The norms of the whole matrices still say that it is small."""
    base = kit.base()
    inspection = inspected(overriding(kit, base, times), base=base)
    named = [fault for fault in inspection.faults if fault.code.startswith("change_")]
    assert [(fault.code, fault.tensors) for fault in named] == [("change_overrides", (OVERRIDDEN,))] * is_named
    assert inspection.verdict is (Verdict.WARN if is_named else Verdict.PASS)
    if is_named:
        assert "(1.02 times, at a scale of 2)" in named[0].message


def test_factors_that_hold_a_part_of_the_base_are_not_measured_against_it(kit: Any, inspected: Any) -> None:
    base = kit.base()
    inspection = inspected(overriding(kit, base, 1.5), base=base, init_lora_weights="pissa")
    assert {fault.code for fault in inspection.faults} == {"altered_base"}
