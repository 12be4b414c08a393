"""What files say of a merge, on models of one layer that are written tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.gguf_models import save_tensors

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.adapters.lora import Lora, LoraFactors
from dlm_sway.chain.model_files import GgufWeights, SafetensorsWeights
from dlm_sway.chain.result import Finding
from dlm_sway.chain.static import judge_fit
from dlm_sway.chain.weights import Fit, fit_merged, predicted_survival
from dlm_sway.core.result import Verdict

Table: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
D: Final = 32
CONFIG: Final = AdapterConfig(peft_type="LORA", r=4, lora_alpha=8)
LLAMA: Final[Table] = {
    "model.embed_tokens.weight": ("token_embd.weight", (20, D)),
    "model.norm.weight": ("output_norm.weight", (D,)),
    "model.layers.0.self_attn.q_proj.weight": ("blk.0.attn_q.weight", (D, D)),
    "model.layers.0.self_attn.k_proj.weight": ("blk.0.attn_k.weight", (16, D)),
    "model.layers.0.self_attn.v_proj.weight": ("blk.0.attn_v.weight", (16, D)),
    "model.layers.0.self_attn.o_proj.weight": ("blk.0.attn_output.weight", (D, D)),
    "model.layers.0.mlp.gate_proj.weight": ("blk.0.ffn_gate.weight", (64, D)),
    "model.layers.0.mlp.up_proj.weight": ("blk.0.ffn_up.weight", (64, D)),
    "model.layers.0.mlp.down_proj.weight": ("blk.0.ffn_down.weight", (D, 64)),
}
GPT2: Final[Table] = {
    "transformer.wte.weight": ("token_embd.weight", (20, D)),
    "transformer.h.0.attn.c_attn.weight": ("blk.0.attn_qkv.weight", (D, 3 * D)),
    "transformer.h.0.attn.c_proj.weight": ("blk.0.attn_output.weight", (D, D)),
    "transformer.h.0.mlp.c_fc.weight": ("blk.0.ffn_up.weight", (D, 4 * D)),
    "transformer.h.0.mlp.c_proj.weight": ("blk.0.ffn_down.weight", (4 * D, D)),
}
Q, V, UP = (f"model.layers.0.{name}" for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"))
BUFFERS: Final = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    "model.layers.1.mlp.up_proj.weight": np.ones((64, D), np.float32),
}


@pytest.mark.parametrize("in_merged", [False, True])
def test_buffers_and_unbuilt_layers_of_the_base_s_file_may_be_missing(tmp_path: Path, in_merged: bool) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights | BUFFERS), _lora(weights, [Q, V])
    other = {name: 2 * value for name, value in BUFFERS.items()} if in_merged else {}
    fit = fit_merged(base, _saved(tmp_path / "merged", _merged(weights, lora) | other), lora)
    assert (fit.missing, fit.changed) == ((), {})
    assert _judged(fit).verdict is Verdict.PASS


def test_the_causal_mask_of_gpt2_may_be_missing(tmp_path: Path) -> None:
    weights = _random(GPT2)
    lora = _lora(weights, ["transformer.h.0.attn.c_attn"], transposed=True)
    mask = {"transformer.h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32)}
    base = _saved(tmp_path / "base", weights | mask, kind="gpt2")
    fit = fit_merged(base, _saved(tmp_path / "m", _merged(weights, lora, transposed=True), kind="gpt2"), lora)
    assert _judged(fit).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("lost", "strange", "cause"),
    [
        (f"{UP}.weight", None, "missing parameters"),
        ("model.norm.weight", None, "missing parameters"),
        (f"{UP}.weight", "model.layers.0.ffn.up_proj.weight", "renamed keys"),
        (f"{Q}.weight", None, "renamed keys"),
    ],
    ids=["lost", "lost norm", "renamed", "adapted"],
)
def test_a_parameter_that_is_really_missing_fails(tmp_path: Path, lost: str, strange: str | None, cause: str) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights | BUFFERS), _lora(weights, [Q, V])
    merged = _merged(weights, lora)
    moved = merged.pop(lost)
    found = _judged(fit_merged(base, _saved(tmp_path / "m", merged | ({strange: moved} if strange else {})), lora))
    assert (found.verdict, found.cause) == (Verdict.FAIL, cause)
    assert lost in found.message


def test_more_missing_parameters_than_strange_ones_are_not_all_renamed(tmp_path: Path) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights), _lora(weights, [Q])
    merged = _merged(weights, lora)
    merged["strange.weight"] = merged.pop("model.layers.0.mlp.gate_proj.weight")
    del merged[f"{UP}.weight"]
    fit = fit_merged(base, _saved(tmp_path / "m", merged), lora)
    assert (len(fit.missing), len(fit.renamed)) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "architecture"), [("gemma", "gemma"), ("gemma2", "gemma2"), ("gemma3_text", "gemma3"), ("qwen2", "qwen2")]
)
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_norms_that_llama_cpp_keeps_plus_one_are_the_base_s(
    tmp_path: Path, kind: str, architecture: str, size: float
) -> None:
    weights = _random(LLAMA)
    weights["model.norm.weight"] *= np.float32(size)
    base, lora = _saved(tmp_path / "base", weights, kind=kind), _lora(weights, [Q, V])
    tensors = _gguf(LLAMA, _merged(weights, lora))
    tensors["output_norm.weight"] += np.float32(kind != "qwen2")
    merged = GgufWeights(save_tensors(tmp_path / "m.gguf", architecture, tensors), base.files.directory)
    fit = fit_merged(base, merged, lora)
    assert (fit.missing, fit.changed) == ((), {})
    assert _judged(fit).verdict is Verdict.PASS


def test_norms_of_another_gemma_are_still_told(tmp_path: Path) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights, kind="gemma2"), _lora(weights, [Q, V])
    tensors = _gguf(LLAMA, _merged(weights, lora))  # without the 1
    merged = GgufWeights(save_tensors(tmp_path / "m.gguf", "gemma2", tensors), base.files.directory)
    assert list(fit_merged(base, merged, lora).changed) == ["model.norm.weight"]


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("adapted", [["attn.c_attn"], ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]])
def test_gpt2_s_matrices_lie_the_other_way_round_in_a_gguf(tmp_path: Path, quant: str, adapted: list[str]) -> None:
    weights = _random(GPT2)
    base = _saved(tmp_path / "base", weights, kind="gpt2")
    lora = _lora(weights, [f"transformer.h.0.{name}" for name in adapted], transposed=True)
    tensors = _gguf(GPT2, _merged(weights, lora, transposed=True))
    turned = {name: value if name == "token_embd.weight" else value.T for name, value in tensors.items()}
    file = save_tensors(tmp_path / "m.gguf", "gpt2", turned, quant=quant)
    fit = fit_merged(base, GgufWeights(file, base.files.directory), lora)
    assert fit.changed == {}
    assert fit.lam == pytest.approx(1.0, abs=1e-4 if quant == "F32" else 0.2)
    if quant != "F32":  # quantised in the file's own direction: what is foreseen is what the file holds
        assert fit.predicted == pytest.approx(fit.lam, abs=1e-6)


def test_weights_of_other_shapes_were_not_compared_and_have_no_scale(tmp_path: Path) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights), _lora(weights, [Q])
    merged = weights | {f"{Q}.weight": np.ones((D * D // 2, 1), np.float32)}
    fit = fit_merged(base, _saved(tmp_path / "m", merged), lora)
    assert np.isnan(fit.lam)
    found = _judged(fit)
    assert (found.verdict, found.cause, found.lam_hat, found.effect_left) == (Verdict.SKIP, None, None, None)
    assert found.evidence["scale"] is None
    assert found.message.startswith("no weight that the adapter changes could be compared")


def test_another_shape_is_said_and_no_distance(tmp_path: Path) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights), _lora(weights, [Q])
    longer = _merged(weights, lora) | {"model.embed_tokens.weight": np.ones((24, D), np.float32)}
    found = _judged(fit_merged(base, _saved(tmp_path / "m", longer), lora))
    assert found.cause == "another base"
    assert found.message.endswith("model.embed_tokens.weight has another shape")


def test_factors_of_another_shape_are_passed_over(tmp_path: Path) -> None:
    weights = _random(LLAMA)
    base, lora = _saved(tmp_path / "base", weights), _lora(weights, [Q])
    wrong = {V: LoraFactors(np.ones((4, D), np.float32), np.ones((D, 4), np.float32), 1.0)}
    kept = predicted_survival(base, lora, dtype="bf16")
    assert predicted_survival(base, {**lora, **wrong}, dtype="bf16") == kept
    assert predicted_survival(base, wrong, dtype="bf16") is None


@pytest.mark.parametrize(
    ("extra", "config"),
    [
        ({}, {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ({f"{Q}.qweight": np.zeros((4, D), np.int32)}, {}),
        ({f"{Q}.weight": np.zeros((D * D // 2, 1), np.uint8)}, {}),
    ],
    ids=["config", "GPTQ", "bitsandbytes"],
)
def test_packed_files_are_known_by_config_names_or_integers(
    tmp_path: Path, extra: dict[str, Any], config: dict[str, Any]
) -> None:
    assert not _saved(tmp_path / "plain", _random(LLAMA)).packed
    assert _saved(tmp_path / "packed", _random(LLAMA) | extra, **config).packed


@pytest.mark.parametrize("quant", ["TQ1_0", "TQ2_0"])
def test_a_ternary_file_is_not_called_another_base(tmp_path: Path, quant: str) -> None:
    sizes = {name: (file, tuple(256 if n == D else n for n in shape)) for name, (file, shape) in LLAMA.items()}
    sizes["model.layers.0.mlp.down_proj.weight"] = ("blk.0.ffn_down.weight", (64, 256))
    weights = _random(sizes)
    base, lora = _saved(tmp_path / "base", weights, kind="qwen2"), _lora(weights, [Q])
    file = save_tensors(tmp_path / "m.gguf", "qwen2", _gguf(sizes, _merged(weights, lora)), quant=quant)
    assert fit_merged(base, GgufWeights(file, base.files.directory), lora).changed == {}


@pytest.mark.parametrize(
    ("lam", "predicted", "verdict", "cause"),
    [
        (1.12, 1.12, Verdict.WARN, "drowned in quantisation"),
        (0.92, 0.92, Verdict.WARN, "drowned in quantisation"),
        (0.5, 0.52, Verdict.FAIL, "rounded away"),
        (1.12, 1.0, Verdict.FAIL, "another scale"),
        (0.5, 1.0, Verdict.FAIL, "alpha ignored"),
        (1.01, 1.0, Verdict.PASS, None),
    ],
)
def test_what_a_format_does_along_the_adapter_is_no_other_scale(
    lam: float, predicted: float, verdict: Verdict, cause: str | None
) -> None:
    fit = Fit(
        lam,
        residual=4.0,
        predicted=predicted,
        nf4_residual=None,
        dtype="Q4_0",
        missing=(),
        changed={},
        n_elements=10**6,
    )
    found = _judged(fit)
    assert (found.verdict, found.cause) == (verdict, cause)


def _random(table: Table) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, (_, shape) in table.items()}


def _saved(folder: Path, weights: dict[str, Any], *, kind: str = "llama", **config: Any) -> SafetensorsWeights:
    folder.mkdir()
    usual = {"model_type": kind, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    said = usual | {"tie_word_embeddings": True} | config
    (folder / "config.json").write_text(json.dumps(said))
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / "model.safetensors")
    return SafetensorsWeights(folder)


def _lora(weights: dict[str, Any], modules: Sequence[str], *, transposed: bool = False) -> Lora:
    rng, found = np.random.default_rng(1), {}
    for module in modules:
        d_out, d_in = weights[f"{module}.weight"].shape[:: -1 if transposed else 1]
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, d_in), (d_out, 4)))
        found[module] = LoraFactors(a * np.float32(0.1), b, 2.0)
    return found


def _merged(weights: dict[str, Any], lora: Lora, *, transposed: bool = False) -> dict[str, Any]:
    deltas = {f"{module}.weight": factors.delta() for module, factors in lora.items()}
    return weights | {name: weights[name] + (delta.T if transposed else delta) for name, delta in deltas.items()}


def _gguf(table: Table, weights: dict[str, Any]) -> dict[str, Any]:
    return {file: np.array(weights[name]) for name, (file, _) in table.items()}


def _judged(fit: Fit) -> Finding:
    return judge_fit(fit, CONFIG)
