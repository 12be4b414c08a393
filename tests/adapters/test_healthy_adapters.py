from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.adapters.checks import inspect_adapter
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
    inspection = inspected(kit.tensors() | kit.embedding_factors() | copy, target_modules=targets)
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
