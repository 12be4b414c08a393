from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.core.errors import AdapterError
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


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_directory_without_weights_is_named(kit: Any) -> None:
    adapter = kit.adapter()
    (adapter / "adapter_model.safetensors").rename(adapter / "model.safetensors")
    inspection = inspect_adapter(adapter, str(kit.base()))
    assert inspection.verdict is Verdict.FAIL
    assert "it holds model.safetensors" in found(inspection, "no_weights").message
    assert inspection.not_done


@pytest.mark.parametrize("content", [b"", (2).to_bytes(8, "little") + b"{}"])
def test_an_empty_weights_file_is_named(inspected: Any, content: bytes) -> None:
    inspection = inspected(content)
    assert found(inspection, "empty_weights").severity == "fail"
    assert inspection.verdict is Verdict.FAIL


def test_a_pickle_is_refused_with_the_command_that_converts_it(kit: Any) -> None:
    adapter = kit.adapter(name="it's an adapter")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    fault = found(inspect_adapter(adapter, str(kit.base())), "pickle_weights")
    assert fault.severity == "fail"
    command = fault.remedy.removeprefix("convert it: ")
    assert "weights_only=True" in command
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout
    python, flag, script = words.splitlines()
    assert (python, flag) == ("python", "-c")
    compile(script, "command", "exec")


def test_a_truncated_file_is_bad_input(kit: Any) -> None:
    adapter = kit.adapter()
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AdapterError, match="truncated"):
        inspect_adapter(adapter, str(kit.base()))


# --- values ---------------------------------------------------------------------------------------------------------


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


# --- names ----------------------------------------------------------------------------------------------------------


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


# --- leftovers ------------------------------------------------------------------------------------------------------


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


def test_trained_biases_are_a_warning(kit: Any, inspected: Any) -> None:
    weights = kit.weights() | {f"{Q0}.bias": np.zeros(16, np.float32)}
    name = f"{PREFIX}{Q0}.base_layer.bias"
    inspection = inspected(kit.tensors() | {name: np.ones(16, np.float32)}, base=kit.base(weights), bias="lora_only")
    assert codes(inspection) == {"trained_bias"}
    assert found(inspection, "trained_bias").tensors == (name,)


# --- shapes ---------------------------------------------------------------------------------------------------------


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


# --- size -----------------------------------------------------------------------------------------------------------


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


# --- config, base and vocabulary ------------------------------------------------------------------------------------


def test_a_base_of_another_name_is_a_warning(inspected: Any) -> None:
    inspection = inspected(base_model_name_or_path="someone/other")
    assert "someone/other" in found(inspection, "base_mismatch").message
    assert inspection.verdict is Verdict.WARN


def test_an_adapter_that_records_no_base_is_told(inspected: Any) -> None:
    inspection = inspected(base_model_name_or_path=None)
    assert found(inspection, "base_unrecorded").severity == "info"
    assert inspection.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("kind", "words"), [("LOTRA", "did you mean LORA"), ("QQ", "PEFT can load"), (None, "restore")]
)
def test_an_unknown_method_is_named(inspected: Any, kind: str | None, words: str) -> None:
    fault = found(inspected(peft_type=kind), "unknown_peft_type")
    assert fault.severity == "fail"
    assert words in fault.remedy


def test_a_method_without_a_rotation_null_is_told(kit: Any, inspected: Any) -> None:
    tensors = {
        f"{PREFIX}{module}.ia3_l": np.full((1, shape[1]), 1.1, np.float32) for module, shape in kit.modules.items()
    }
    inspection = inspected(tensors, peft_type="IA3")
    assert codes(inspection) == {"no_rotation_null"}
    assert inspection.verdict is Verdict.PASS


def test_tensors_of_another_method_must_land_on_the_base_too(inspected: Any) -> None:
    name = f"{PREFIX}model.layers.9.self_attn.q_proj.ia3_l"
    assert found(inspected({name: np.ones((1, 16), np.float32)}, peft_type="IA3"), "unexpected_tensor").tensors == (
        name,
    )


def test_an_initialisation_that_moves_weights_is_told(inspected: Any) -> None:
    inspection = inspected(init_lora_weights="pissa_niter_4")
    assert found(inspection, "altered_base").severity == "info"


def _embedding_factors() -> Any:
    rng = np.random.default_rng(0)
    return {
        f"{PREFIX}model.embed_tokens.lora_embedding_A": rng.normal(size=(4, 64)).astype(np.float32) / 8,
        f"{PREFIX}model.embed_tokens.lora_embedding_B": rng.normal(size=(16, 4)).astype(np.float32) / 100,
    }


def test_an_adapted_embedding_under_tied_weights_is_a_warning(kit: Any, inspected: Any) -> None:
    base = kit.base(kit.weights(tied=True), tie_word_embeddings=True)
    targets = ["q_proj", "v_proj", "up_proj", "down_proj", "embed_tokens"]
    inspection = inspected(kit.tensors() | _embedding_factors(), base=base, target_modules=targets)
    assert found(inspection, "tied_weights").tensors == ("model.embed_tokens",)
    assert codes(inspection) == {"tied_weights"}


def test_an_adapted_head_under_tied_weights_is_a_warning(kit: Any, inspected: Any) -> None:
    base = kit.base(kit.weights(tied=True), tie_word_embeddings=True)
    tensors = kit.tensors() | kit.factors("lm_head", (64, 16))
    inspection = inspected(tensors, base=base, target_modules=["q_proj", "v_proj", "up_proj", "down_proj", "lm_head"])
    assert found(inspection, "tied_weights").tensors == ("lm_head",)
    assert codes(inspection) == {"tied_weights"}


def test_a_tokenizer_longer_than_the_embedding_fails(kit: Any) -> None:
    adapter, base = kit.adapter(), kit.base()
    kit.tokenizer(adapter, 66)
    inspection = inspect_adapter(adapter, str(base))
    fault = found(inspection, "tokenizer_too_long")
    assert fault.severity == "fail"
    assert "ids up to 65" in fault.message
    assert "64 rows" in fault.message


def test_a_base_that_ships_a_longer_tokenizer_itself_is_a_warning(kit: Any) -> None:
    inspection = inspect_adapter(kit.adapter(), str(kit.base(n_ids=65)))
    assert found(inspection, "tokenizer_too_long").severity == "warn"


def test_a_resized_embedding_is_a_warning_and_makes_room_for_its_tokenizer(kit: Any) -> None:
    name = f"{PREFIX}model.embed_tokens.weight"
    adapter = kit.adapter(kit.tensors() | {name: np.ones((66, 16), np.float32)}, modules_to_save=["embed_tokens"])
    kit.tokenizer(adapter, 66)
    inspection = inspect_adapter(adapter, str(kit.base()))
    assert codes(inspection) == {"resized_vocabulary"}
    assert "resize_token_embeddings(66)" in found(inspection, "resized_vocabulary").remedy


def test_without_its_base_an_adapter_is_inconclusive_and_says_what_is_left_to_check(
    kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    inspection = inspect_adapter(kit.adapter())
    fault = found(inspection, "base_not_checked")
    assert fault.severity == "info"
    assert "hf download someone/base" in fault.remedy
    assert inspection.verdict is Verdict.INCONCLUSIVE
    assert "unexpected_tensor" in inspection.not_done
    assert inspection.modules[0].norm_weight is None
    assert inspection.modules[0].norm_delta > 0


def test_faults_of_the_file_are_found_without_the_base(kit: Any) -> None:
    tensors = kit.tensors()
    tensors[a_of(Q0)][0, 0] = np.nan
    inspection = inspect_adapter(kit.adapter(tensors, base_model_name_or_path=None))
    assert {"not_finite", "base_not_checked", "base_unrecorded"} == codes(inspection)
    assert inspection.verdict is Verdict.FAIL


def test_a_base_that_does_not_exist_is_bad_input_and_a_recorded_one_is_not(kit: Any) -> None:
    adapter = kit.adapter(base_model_name_or_path="/somebody/elses/models/base")
    with pytest.raises(AdapterError, match="no such base model"):
        inspect_adapter(adapter, "/no/such/base")
    assert inspect_adapter(adapter).verdict is Verdict.INCONCLUSIVE


def test_a_damaged_base_is_bad_input(kit: Any) -> None:
    base = kit.base()
    (base / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(AdapterError, match="only 1 bytes"):
        inspect_adapter(kit.adapter(), str(base))


def test_a_quantised_base_checks_names_and_says_that_shapes_are_open(kit: Any, inspected: Any) -> None:
    weights = {
        name: np.ones((value.size // 2, 1), np.uint8) if "proj" in name else value
        for name, value in kit.weights().items()
    }
    inspection = inspected(base=kit.base(weights, quantization_config={"quant_method": "bitsandbytes"}))
    assert codes(inspection) == {"packed_base"}


def test_every_fault_is_found_at_once(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors()
    tensors[a_of(Q0)][0, 0] = np.inf
    tensors[b_of(UP0)][:] = 0
    del tensors[b_of("model.layers.1.self_attn.v_proj")]
    inspection = inspected(tensors, lora_alpha=800, base_model_name_or_path="someone/other")
    assert {"not_finite", "zero_modules", "missing_tensor", "scale_absurd", "base_mismatch"} <= codes(inspection)
    severities = [fault.severity for fault in inspection.faults]
    assert severities == sorted(severities, key=["fail", "warn", "info"].index)


# --- healthy adapters -----------------------------------------------------------------------------------------------


def test_a_healthy_lora_passes_with_exact_figures(kit: Any, inspected: Any) -> None:
    inspection = inspected()
    assert inspection.verdict is Verdict.PASS
    assert inspection.faults == ()
    assert inspection.facts.n_tensors == 16
    assert len(inspection.facts.sha256) == 64
    row = next(row for row in inspection.modules if row.module == UP0)
    a, b = kit.tensors()[a_of(UP0)].astype(float), kit.tensors()[b_of(UP0)].astype(float)
    weight = kit.weights()[f"{UP0}.weight"].astype(float)
    values = np.linalg.svd(2 * b @ a, compute_uv=False)
    assert (row.kind, row.rank, row.scale) == ("linear", 4, 2.0)
    assert row.norm_a == pytest.approx(np.linalg.norm(a))
    assert row.norm_b == pytest.approx(np.linalg.norm(b))
    assert row.norm_delta == pytest.approx(np.linalg.norm(values))
    assert row.norm_weight == pytest.approx(np.linalg.norm(weight))
    assert row.ratio == pytest.approx(np.linalg.norm(values) / np.linalg.norm(weight))
    assert row.spectral == pytest.approx(values[0])
    assert 1 < row.effective_rank < 4


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_a_healthy_adapter_in_half_precision_passes(kit: Any, inspected: Any, dtype: str) -> None:
    encode = {"BF16": kit.bfloat16, "F16": lambda value: value.astype("<f2").tobytes()}[dtype]
    content = kit.raw({name: (dtype, value.shape, encode(value)) for name, value in kit.tensors().items()})
    inspection = inspected(content)
    assert inspection.verdict is Verdict.PASS
    a = kit.tensors()[a_of(Q0)]
    row = next(row for row in inspection.modules if row.module == Q0)
    assert row.norm_a == pytest.approx(np.linalg.norm(a), rel=0.01)


def test_a_healthy_rslora_with_patterns_passes(kit: Any, inspected: Any) -> None:
    tensors = kit.tensors() | kit.factors(Q0, (16, 16), rank=8)
    inspection = inspected(
        tensors,
        use_rslora=True,
        rank_pattern={r"layers\.0\.self_attn\.q_proj": 8},
        alpha_pattern={"v_proj": 2},
    )
    assert inspection.faults == ()
    scales = {row.module: row.scale for row in inspection.modules}
    assert scales[Q0] == pytest.approx(8 / 8**0.5)
    assert scales["model.layers.0.self_attn.v_proj"] == pytest.approx(2 / 2)
    assert scales[UP0] == pytest.approx(8 / 2)


@pytest.mark.parametrize("suffix", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_a_healthy_dora_passes(kit: Any, inspected: Any, suffix: str) -> None:
    magnitudes = {f"{PREFIX}{module}.{suffix}": np.ones(shape[0], np.float32) for module, shape in kit.modules.items()}
    assert inspected(kit.tensors() | magnitudes, use_dora=True).faults == ()


def test_a_magnitude_of_the_wrong_size_is_named(kit: Any, inspected: Any) -> None:
    magnitudes = {
        f"{PREFIX}{module}.lora_magnitude_vector": np.ones(shape[0], np.float32)
        for module, shape in kit.modules.items()
    }
    name = f"{PREFIX}{UP0}.lora_magnitude_vector"
    magnitudes[name] = np.ones(7, np.float32)
    assert found(inspected(kit.tensors() | magnitudes, use_dora=True), "wrong_shape").tensors == (name,)


def test_a_healthy_embedding_lora_passes_with_the_embedding_that_peft_saves_beside_it(kit: Any, inspected: Any) -> None:
    copy = {f"{PREFIX}model.embed_tokens.base_layer.weight": kit.weights()["model.embed_tokens.weight"]}
    targets = ["q_proj", "v_proj", "up_proj", "down_proj", "embed_tokens"]
    inspection = inspected(kit.tensors() | _embedding_factors() | copy, target_modules=targets)
    assert inspection.faults == ()
    row = next(row for row in inspection.modules if row.module == "model.embed_tokens")
    assert row.kind == "embedding"
    assert row.rank == 4
    assert row.ratio > 0


def test_healthy_modules_to_save_pass_and_show_their_change(kit: Any, inspected: Any) -> None:
    head = kit.weights()["lm_head.weight"]
    tensors = kit.tensors() | {f"{PREFIX}lm_head.weight": head + np.float32(0.01)}
    inspection = inspected(tensors, modules_to_save=["lm_head"])
    assert inspection.faults == ()
    row = next(row for row in inspection.modules if row.kind == "whole")
    assert row.module == "lm_head"
    assert row.norm_delta == pytest.approx(0.01 * head.size**0.5, rel=1e-3)
    assert row.ratio == pytest.approx(row.norm_delta / np.linalg.norm(head), rel=1e-5)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_healthy_adapter_on_gpt2s_transposed_layers_passes(kit: Any, inspected: Any, prefix: str) -> None:
    rng = np.random.default_rng(0)
    weights = {
        f"{prefix}wte.weight": rng.normal(size=(64, 16)),
        f"{prefix}wpe.weight": rng.normal(size=(32, 16)),
        f"{prefix}h.0.attn.c_attn.weight": rng.normal(size=(16, 48)),
        f"{prefix}h.0.mlp.c_proj.weight": rng.normal(size=(64, 16)),
        f"{prefix}h.0.ln_1.weight": np.ones(16),
    }
    base = kit.base(
        {name: value.astype(np.float32) for name, value in weights.items()},
        model_type="gpt2",
        tie_word_embeddings=None,
        num_hidden_layers=None,
    )
    tensors = kit.tensors({"transformer.h.0.attn.c_attn": (48, 16), "transformer.h.0.mlp.c_proj": (16, 64)})
    inspection = inspected(tensors, base=base, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    assert inspection.faults == ()
    wrong = kit.tensors({"transformer.h.0.attn.c_attn": (16, 48), "transformer.h.0.mlp.c_proj": (16, 64)})
    again = inspect_adapter(kit.adapter(wrong, name="wrong", target_modules=["c_attn", "c_proj"]), str(base))
    assert codes(again) == {"swapped_factors"}


@pytest.mark.parametrize("groups", [1, 2])
def test_a_healthy_convolution_passes(kit: Any, inspected: Any, groups: int) -> None:
    rng = np.random.default_rng(0)
    conv = rng.normal(size=(8, 6 // groups, 3, 3)).astype(np.float32)
    base = kit.base(kit.weights() | {"model.stem.conv.weight": conv})
    tensors = kit.tensors() | {
        a_of("model.stem.conv"): rng.normal(size=(4, 6, 3, 3)).astype(np.float32) / 10,
        b_of("model.stem.conv"): rng.normal(size=(8, 4 // groups, 1, 1)).astype(np.float32) / 10,
    }
    inspection = inspected(tensors, base=base, target_modules=["q_proj", "v_proj", "up_proj", "down_proj", "conv"])
    assert inspection.faults == ()
    row = next(row for row in inspection.modules if row.module == "model.stem.conv")
    assert row.kind == "conv"
    assert (row.norm_delta is not None) is (groups == 1)


def test_healthy_lora_on_bare_expert_parameters_passes(kit: Any, inspected: Any) -> None:
    rng = np.random.default_rng(0)
    experts = {"model.layers.0.mlp.experts.gate_up_proj": rng.normal(size=(2, 16, 32)).astype(np.float32)}
    base = kit.base(kit.weights() | experts)
    owner = f"{PREFIX}model.layers.0.mlp.experts"
    tensors = kit.tensors() | {
        f"{owner}.lora_A.weight": rng.normal(size=(8, 32)).astype(np.float32),
        f"{owner}.lora_B.weight": rng.normal(size=(16, 8)).astype(np.float32),
    }
    inspection = inspected(tensors, base=base, target_parameters=["mlp.experts.gate_up_proj"])
    assert inspection.faults == ()
    kinds = {row.module: row.kind for row in inspection.modules}
    assert kinds["model.layers.0.mlp.experts"] == "parameter"


def test_a_healthy_adapter_on_a_sharded_base_found_in_the_hub_cache_passes(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = kit.root / "hub" / "models--someone--base"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    snapshot = kit.base().rename(repo / "snapshots" / "abc")
    weights = kit.weights()
    (snapshot / "model.safetensors").unlink()
    save_file(weights, snapshot / "model-1.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "model-1.safetensors")}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setenv("HF_HUB_CACHE", str(kit.root / "hub"))
    inspection = inspect_adapter(kit.adapter())
    assert inspection.verdict is Verdict.PASS
    assert inspection.base == "someone/base"


# --- cost -----------------------------------------------------------------------------------------------------------


def test_an_inspection_holds_one_tensor_at_a_time(kit: Any) -> None:
    n_layers, width = 12, 1024
    modules = {f"model.layers.{layer}.self_attn.q_proj": (width, width) for layer in range(n_layers)}
    weights = {f"{module}.weight": np.ones(shape, np.float32) for module, shape in modules.items()}
    base = kit.base(weights, n_ids=None, num_hidden_layers=n_layers)
    adapter = kit.adapter(kit.tensors(modules, rank=64), r=64, lora_alpha=64, target_modules=["q_proj"])
    n_bytes = (adapter / "adapter_model.safetensors").stat().st_size + (base / "model.safetensors").stat().st_size
    inspect_adapter(adapter, str(base))
    tracemalloc.start()
    inspection = inspect_adapter(adapter, str(base))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert inspection.verdict is Verdict.PASS
    one_weight = 4 * width * width
    assert peak < 4 * one_weight < n_bytes / 3  # one block as stored, and one in float64


def test_importing_the_checks_is_quick_and_loads_neither_torch_nor_the_hub() -> None:
    program = (
        "import sys, time, numpy; start = time.perf_counter(); import dlm_sway.adapters.checks; "
        "took = time.perf_counter() - start; "
        "print(took, *(name in sys.modules for name in ('torch', 'transformers', 'peft', 'huggingface_hub', 'scipy')))"
    )
    # The best of three: the figure is of the imports, not of what else the machine is doing.
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    took = min(float(run.stdout.split()[0]) for run in runs)
    assert runs[0].stdout.split()[1:] == ["False"] * 5
    assert took < 0.3
