from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlm_sway.core.result import Verdict

PREFIX = "base_model.model."
Q0 = "model.layers.0.self_attn.q_proj"


def found(inspection: Any, code: str) -> Any:
    """The one fault of this code."""
    faults = [fault for fault in inspection.faults if fault.code == code]
    assert len(faults) == 1, [fault.code for fault in inspection.faults]
    return faults[0]


def a_of(module: str) -> Any:
    return f"{PREFIX}{module}.lora_A.weight"


def b_of(module: str) -> Any:
    return f"{PREFIX}{module}.lora_B.weight"


def test_an_adapter_whose_every_b_is_zero_was_never_trained(kit: Any, inspected: Any) -> None:
    tensors = {name: value * 0 if ".lora_B." in name else value for name, value in kit.tensors().items()}
    fault = found(inspected(tensors), "untrained")
    assert fault.severity == "fail"
    assert len(fault.tensors) == 8


def test_modules_whose_b_is_zero_are_a_warning_and_named(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors()
    tensors[b_of(Q0)][:] = 0
    inspection = inspected(tensors)
    assert found(inspection, "zero_modules").tensors == (b_of(Q0),)
    assert inspection.verdict is Verdict.WARN


def test_a_zero_a_changes_nothing_either(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors()
    tensors[a_of(Q0)][:] = 0
    assert found(inspected(tensors), "zero_modules").tensors == (a_of(Q0),)


def test_tensors_without_values_are_named(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors() | {a_of(Q0): np.zeros((0,), np.float32)}
    inspection = inspected(tensors)
    assert found(inspection, "empty_tensor").tensors == (a_of(Q0),)
    assert "ZeRO-3" in found(inspection, "empty_tensor").remedy
    assert inspection.verdict is Verdict.FAIL


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_are_named_and_counted(kit: Any, inspected: Any, value: float) -> None:
    tensors = kit.tensors()
    tensors[a_of(Q0)][0, :3] = value
    inspection = inspected(tensors)
    fault = found(inspection, "not_finite")
    assert fault.severity == "fail"
    assert fault.tensors == (a_of(Q0),)
    assert "3 NaN" in fault.message if np.isnan(value) else "3 infinite" in fault.message
    row = next(row for row in inspection.modules if row.module == Q0)
    assert row.norm_a is None
    assert row.norm_delta is None
    assert row.norm_b is not None


def test_an_unreadable_number_format_is_named(kit: Any, inspected: Any) -> None:
    inspection = inspected(kit.raw({a_of(Q0): ("F4", (4, 16), b"x" * 32), b_of(Q0): ("F4", (16, 4), b"x" * 32)}))
    assert found(inspection, "unreadable_format").severity == "fail"
