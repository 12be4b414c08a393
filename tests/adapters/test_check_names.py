from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlm_sway.core.result import Verdict

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


def test_names_that_match_no_module_are_listed_with_the_targets_that_got_nothing(kit: Any, inspected: Any) -> None:
    tensors = {name.replace("model.model.", "model."): value for name, value in kit.tensors().items()}
    inspection = inspected(tensors)
    unexpected, missing = found(inspection, "unexpected_tensor"), found(inspection, "untouched_target")
    assert (unexpected.severity, missing.severity) == ("fail", "fail")
    assert set(unexpected.tensors) == set(tensors)
    assert set(missing.tensors) == set(kit.modules)
    assert "with `model.` in front" in unexpected.remedy


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module."])
def test_wrappers_left_in_names_are_recognised(kit: Any, inspected: Any, wrapper: str) -> None:
    tensors = {name.replace("layers.", f"{wrapper}layers."): value for name, value in kit.tensors().items()}
    assert wrapper in found(inspected(tensors), "unexpected_tensor").remedy


def test_one_renamed_module_is_both_unexpected_and_missing(kit: Any, inspected: Any) -> None:
    tensors = {name.replace(Q0, f"{Q0}_old"): value for name, value in kit.tensors().items()}
    inspection = inspected(tensors)
    assert set(found(inspection, "unexpected_tensor").tensors) == {a_of(f"{Q0}_old"), b_of(f"{Q0}_old")}
    assert found(inspection, "untouched_target").tensors == (Q0,)


@pytest.mark.parametrize(("gone", "kept"), [(a_of(Q0), b_of(Q0)), (b_of(Q0), a_of(Q0))])
def test_a_factor_without_its_partner_is_missing(kit: Any, inspected: Any, gone: str, kept: str) -> None:
    tensors = kit.tensors()
    del tensors[gone]
    inspection = inspected(tensors)
    assert found(inspection, "missing_tensor").tensors == (gone,)
    assert inspection.verdict is Verdict.FAIL
    assert kept not in found(inspection, "missing_tensor").tensors


def test_a_target_without_any_tensor_is_listed(kit: Any, inspected: Any) -> None:
    tensors = {name: value for name, value in kit.tensors().items() if UP0 not in name}
    fault = found(inspected(tensors), "untouched_target")
    assert fault.tensors == (UP0,)


def test_all_linear_misses_every_linear_module_but_the_head(kit: Any, inspected: Any) -> None:
    tensors = {name: value for name, value in kit.tensors().items() if ".q_proj" in name}
    fault = found(inspected(tensors, target_modules="all-linear"), "untouched_target")
    assert set(fault.tensors) == {module for module in kit.modules if "q_proj" not in module}


def test_an_adapter_name_left_in_the_tensors_is_recognised(kit: Any, inspected: Any) -> None:
    tensors = {name.replace(".weight", ".default.weight"): value for name, value in kit.tensors().items()}
    fault = found(inspected(tensors), "unrecognised_tensor")
    assert fault.severity == "fail"
    assert len(fault.tensors) == 16
    assert "own name" in fault.remedy


def test_names_without_the_prefix_of_peft_are_recognised(kit: Any, inspected: Any) -> None:
    tensors = {name.removeprefix(PREFIX): value for name, value in kit.tensors().items()}
    assert PREFIX in found(inspected(tensors), "unrecognised_tensor").remedy


def test_dora_without_magnitudes_is_named(inspected: Any) -> None:
    fault = found(inspected(use_dora=True), "missing_tensor")
    assert f"{PREFIX}{Q0}.lora_magnitude_vector" in fault.tensors


def test_magnitudes_in_an_adapter_that_is_no_dora_are_named(kit: Any, inspected: Any) -> None:
    name = f"{PREFIX}{Q0}.lora_magnitude_vector"
    fault = found(inspected(kit.tensors() | {name: np.ones(16, np.float32)}), "unexpected_magnitude")
    assert fault.tensors == (name,)


def test_a_saved_module_without_a_tensor_is_missing(inspected: Any) -> None:
    assert found(inspected(modules_to_save=["lm_head"]), "missing_tensor").tensors == ("lm_head (modules_to_save)",)


def test_names_of_a_base_that_transformers_renames_are_only_a_warning(kit: Any, inspected: Any) -> None:
    tensors = {name.replace("model.model.", "model."): value for name, value in kit.tensors().items()}
    inspection = inspected(tensors, base=kit.base(text_config={}))
    assert found(inspection, "unexpected_tensor").severity == "warn"
    assert inspection.verdict is Verdict.WARN


def test_a_saved_module_that_the_config_does_not_name_is_a_leftover(kit: Any, inspected: Any) -> None:
    name = f"{PREFIX}lm_head.weight"
    inspection = inspected(kit.tensors() | {name: kit.weights()["lm_head.weight"] + 0.1})
    fault = found(inspection, "leftover_module")
    assert fault.tensors == (name,)
    assert inspection.verdict is Verdict.WARN


def test_a_saved_copy_of_the_bases_own_values_is_no_leftover(kit: Any, inspected: Any) -> None:
    name = f"{PREFIX}lm_head.weight"
    assert codes(inspected(kit.tensors() | {name: kit.weights()["lm_head.weight"]})) == set()


def test_a_tensor_under_the_wrapper_of_modules_to_save_is_not_loaded(kit: Any, inspected: Any) -> None:
    name = f"{PREFIX}lm_head.modules_to_save.default.weight"
    inspection = inspected(kit.tensors() | {name: kit.weights()["lm_head.weight"]}, modules_to_save=["lm_head"])
    assert found(inspection, "wrapped_module").tensors == (name,)


def test_a_copy_under_the_wrapper_beside_the_tensor_that_is_loaded_does_no_harm(kit: Any, inspected: Any) -> None:
    head = kit.weights()["lm_head.weight"]
    wrapped = {f"{PREFIX}lm_head.{side}.weight": head for side in ("modules_to_save", "original_module")}
    tensors = kit.tensors() | wrapped | {f"{PREFIX}lm_head.weight": head + np.float32(0.01)}
    assert codes(inspected(tensors, modules_to_save=["lm_head"])) == set()


@pytest.mark.parametrize(
    ("name", "faults"),
    [("layernorm", set()), ("norm", set()), ("norms", {"missing_tensor", "leftover_module"})],
)
def test_a_saved_module_is_looked_for_by_the_end_of_its_name(
    kit: Any, inspected: Any, name: str, faults: set[str]
) -> None:
    saved = {
        f"{PREFIX}{owner}.weight": np.full(16, 1.01, np.float32)
        for owner in ("model.layers.0.input_layernorm", "model.layers.1.post_attention_layernorm")
    }
    assert codes(inspected(kit.tensors() | saved, modules_to_save=[name])) == faults


def test_trained_biases_are_a_warning(kit: Any, inspected: Any) -> None:
    weights = kit.weights() | {f"{Q0}.bias": np.zeros(16, np.float32)}
    name = f"{PREFIX}{Q0}.base_layer.bias"
    inspection = inspected(kit.tensors() | {name: np.ones(16, np.float32)}, base=kit.base(weights), bias="lora_only")
    assert codes(inspection) == {"trained_bias"}
    assert found(inspection, "trained_bias").tensors == (name,)
