from __future__ import annotations

from typing import Any

import numpy as np
import pytest

PREFIX = "base_model.model."
Q0 = "model.layers.0.self_attn.q_proj"
UP0 = "model.layers.0.mlp.up_proj"


def found(inspection: Any, code: str) -> Any:
    """The one fault of this code."""
    faults = [fault for fault in inspection.faults if fault.code == code]
    assert len(faults) == 1, [fault.code for fault in inspection.faults]
    return faults[0]


def codes(inspection: Any) -> Any:
    return {fault.code for fault in inspection.faults}


def a_of(module: str) -> Any:
    return f"{PREFIX}{module}.lora_A.weight"


def b_of(module: str) -> Any:
    return f"{PREFIX}{module}.lora_B.weight"


def test_a_tensor_that_does_not_fit_the_bases_weight_is_named(kit: Any, inspected: Any) -> None:
    inspection = inspected(
        kit.tensors({module: (24, 12) if module == UP0 else shape for module, shape in kit.modules.items()})
    )
    fault = found(inspection, "wrong_shape")
    assert set(fault.tensors) == {a_of(UP0), b_of(UP0)}
    assert "the weight reads 16" in fault.message
    assert "the weight writes 32" in fault.message


def test_factors_that_disagree_on_the_rank_are_named(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors() | {b_of(Q0): np.ones((16, 3), np.float32)}
    assert found(inspected(tensors), "wrong_shape").tensors == (b_of(Q0),)


def test_a_factor_that_is_no_matrix_is_named(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors() | {b_of(Q0): np.ones(16, np.float32)}
    assert "no matrix" in found(inspected(tensors), "wrong_shape").message


@pytest.mark.parametrize("module", [Q0, UP0])
def test_swapped_factors_are_named_for_square_and_other_weights(kit: Any, inspected: Any, module: str) -> None:
    tensors = kit.tensors()
    tensors[a_of(module)], tensors[b_of(module)] = tensors[b_of(module)], tensors[a_of(module)]
    inspection = inspected(tensors)
    assert set(found(inspection, "swapped_factors").tensors) == {a_of(module), b_of(module)}
    assert not codes(inspection) & {"wrong_shape", "rank_mismatch"}


def test_factors_swapped_and_transposed_are_told_by_the_base(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors()
    a, b = tensors[a_of(UP0)], tensors[b_of(UP0)]
    tensors[a_of(UP0)], tensors[b_of(UP0)] = np.ascontiguousarray(b.T), np.ascontiguousarray(a.T)
    assert set(found(inspected(tensors), "swapped_factors").tensors) == {a_of(UP0), b_of(UP0)}


def test_a_rank_other_than_the_configs_is_named(inspected: Any) -> None:
    fault = found(inspected(r=8), "rank_mismatch")
    assert len(fault.tensors) == 8
    assert "4, not 8" in fault.message


def test_a_rank_other_than_its_patterns_is_named(inspected: Any) -> None:
    assert found(inspected(rank_pattern={"layers.0.self_attn.q_proj": 2}), "rank_mismatch").tensors == (Q0,)


def test_a_saved_module_of_another_width_does_not_fit(kit: Any, inspected: Any) -> None:
    name = f"{PREFIX}lm_head.weight"
    tensors = kit.tensors() | {name: np.ones((64, 12), np.float32)}
    assert found(inspected(tensors, modules_to_save=["lm_head"]), "wrong_shape").tensors == (name,)
