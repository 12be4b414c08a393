from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def test_a_base_with_a_missing_file_is_a_finding_beside_those_of_the_adapter(kit: Any) -> None:
    base = kit.base()
    (base / "model.safetensors").unlink()
    names = [*kit.weights(), "x", "y", "z"]
    shards = {name: f"model-{number}.safetensors" for number, name in enumerate(names[-5:])}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (base / "model-0.safetensors").touch()
    inspection = inspect_adapter(kit.adapter(), str(base))
    fault = found(inspection, "base_incomplete")
    assert f"the base {base} names model-1.safetensors, model-2.safetensors, model-3.safetensors and 1 more, which" in (
        fault.message
    )
    assert "download or copy the base again" in fault.remedy
    assert (fault.severity, inspection.verdict) == ("warn", Verdict.INCONCLUSIVE)
    assert "unexpected_tensor" in inspection.not_done
    broken = kit.tensors()
    broken[a_of(Q0)][0, 0] = np.nan
    inspection = inspect_adapter(kit.adapter(broken, name="broken"), str(base))
    assert inspection.verdict is Verdict.FAIL
    assert {"base_incomplete", "not_finite"} <= codes(inspection)


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
        "import sys, time, numpy; start = time.process_time(); import dlm_sway.adapters.checks; "
        "took = time.process_time() - start; "
        "print(took, *(name in sys.modules for name in ('torch', 'transformers', 'peft', 'huggingface_hub', 'scipy')))"
    )
    # Processor time, the best of three: the figure is of the imports, not of what else the machine is doing.
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    took = min(float(run.stdout.split()[0]) for run in runs)
    assert runs[0].stdout.split()[1:] == ["False"] * 5
    assert took < 0.3
