"""What PEFT writes by its own defaults: healthy adapters pass, and what a format can say of them is converted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tests.models import base_of, lora, open_backend, save_adapter, save_base
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GPTNeoXConfig,
    MixtralConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.adapters.convert import To, convert
from dlm_sway.adapters.gguf_lora import read_gguf_lora
from dlm_sway.adapters.gguf_names import names_of
from dlm_sway.adapters.lora import read_peft_lora
from dlm_sway.adapters.rescale import rescale
from dlm_sway.core.errors import AdapterError

WEIGHTS = "adapter_model.safetensors"
COPY = "base_model.model.lm_head.base_layer.weight"
PEFTS_OWN: Any = "auto"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
MIXTURES: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen3": lambda: Qwen3MoeConfig(**SHAPE, head_dim=8, num_experts=4, moe_intermediate_size=16),
    "mixtral": lambda: MixtralConfig(**SHAPE, num_local_experts=4),
    "deepseek": lambda: DeepseekV3Config(
        **SHAPE, **LATENT, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, n_group=1, topk_group=1,
        first_k_dense_replace=1,
    ),
}  # fmt: skip


def saved(out: Path, config: PreTrainedConfig) -> Path:
    AutoModelForCausalLM.from_config(config).save_pretrained(out)
    return out


def by_default(base: Path, out: Path, config: Any) -> Path:
    return save_adapter(base, out, config, std=0.02, save_embedding_layers=PEFTS_OWN)


def codes(adapter: Path, base: Path) -> set[str]:
    return {fault.code for fault in inspect_adapter(adapter, str(base)).faults}


@pytest.mark.parametrize("kind", list(MIXTURES))
def test_lora_on_the_experts_of_a_mixture_is_no_fault_and_no_linear_module(kind: str, tmp_path: Path) -> None:
    """PEFT makes of the usual list the parameters of fused experts, written without their owner."""
    base = saved(tmp_path / "base", MIXTURES[kind]())
    attention = ["o_proj"] if kind == "deepseek" else ATTENTION
    experts = ["w1", "w2", "w3"] if kind == "mixtral" else ["gate_proj", "up_proj", "down_proj"]
    adapter = by_default(base, tmp_path / "adapter", lora(target_modules=[*attention, *experts]))
    inspection = inspect_adapter(adapter, str(base))
    assert [fault for fault in inspection.faults if fault.severity == "fail"] == []
    kinds = {row.module: row.kind for row in inspection.modules}
    owner = "model.layers.1.mlp.experts"
    assert kinds[owner] == kinds[f"{owner}.base_layer"] == "parameter"
    assert kinds["model.layers.1.self_attn.o_proj"] == "linear"
    forms: tuple[To, ...] = ("mlx", "gguf")
    for to in forms:
        with pytest.raises(AdapterError, match=r"mlp\.experts is adapted as a whole \(target_parameters\)"):
            convert(adapter, to=to, out=tmp_path / to, base=str(base))
        assert not (tmp_path / to).exists()


def grown(base: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(304, mean_resizing=False)
    return model


def test_tokens_added_as_peft_says_are_no_fault_but_need_a_base_of_their_size(tmp_path: Path) -> None:
    base = base_of("llama")
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = grown(base)
        model.save_pretrained(tmp_path / "grown")
        tuned = peft.get_peft_model(model, lora(modules_to_save=["embed_tokens", "lm_head"]))
        with torch.no_grad():
            for p in tuned.parameters():
                p.add_(torch.randn_like(p) * 0.02 * p.requires_grad)
        tuned.save_pretrained(tmp_path / "adapter")
    names = load_file(tmp_path / "adapter" / WEIGHTS)
    assert any("modules_to_save" in name for name in names), "PEFT no longer saves the wrapper"
    assert codes(tmp_path / "adapter", base) == {"resized_vocabulary"}
    assert codes(tmp_path / "adapter", tmp_path / "grown") == {"base_mismatch"}  # another name than the one recorded


@pytest.fixture
def head(tmp_path: Path) -> Path:
    config = lora(target_modules=["q_proj", "v_proj", "lm_head"])
    adapter = by_default(base_of("llama"), tmp_path / "adapter", config)
    assert COPY in load_file(adapter / WEIGHTS), "PEFT no longer saves the head under its LoRA"
    return adapter


@pytest.mark.parametrize("named", [False, True])
def test_lora_on_the_head_is_read_without_the_copy_of_the_base(named: bool, head: Path) -> None:
    found, _ = read_peft_lora(head, base=str(base_of("llama")) if named else None)
    assert "lm_head" in found
    assert len(found) == 5


def test_lora_on_the_head_is_converted(head: Path, tmp_path: Path) -> None:
    written = convert(head, to="gguf", out=tmp_path / "a.gguf")
    back, _ = read_gguf_lora(tmp_path / "a.gguf", names_of(base_of("llama")))
    np.testing.assert_allclose(back["lm_head"].delta(), written["lm_head"].delta(), atol=1e-6)
    convert(head, to="mlx", out=tmp_path / "mlx")
    tensors = load_file(tmp_path / "mlx" / "adapters.safetensors")
    assert {name for name in tensors if "lm_head" in name} == {"lm_head.lora_a", "lm_head.lora_b"}


def test_lora_on_the_head_is_rescaled_with_the_copy_as_it_is(head: Path, tmp_path: Path) -> None:
    done = rescale(head, 0.5, tmp_path / "half")
    np.testing.assert_array_equal(load_file(done.out / WEIGHTS)[COPY], load_file(head / WEIGHTS)[COPY])
    source, half = open_backend(base_of("llama"), head), open_backend(base_of("llama"), done.out)
    with source.as_scaled_adapter(0.5) as wanted, half.as_finetuned() as got:
        scores = [view.rolling_logprob("the bell is struck").logprobs for view in (got, wanted)]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_a_copy_that_is_not_the_bases_own_is_refused_by_name(head: Path, tmp_path: Path) -> None:
    tensors = load_file(head / WEIGHTS)
    tensors[COPY][3] += 0.1
    save_file(tensors, head / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(
        AdapterError, match=r"lm_head\.base_layer\.weight, which is not the lm_head\.weight of the base"
    ):
        convert(head, to="mlx", out=tmp_path / "mlx")
    assert not (tmp_path / "mlx").exists()
    assert codes(head, base_of("llama")) == {"leftover_module"}


def test_a_copy_is_taken_as_it_is_where_no_base_can_be_compared(head: Path) -> None:
    config = head / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base_of("llama")), "someone/not-here"))
    assert "lm_head" in read_peft_lora(head)[0]


def test_the_head_of_a_tied_base_is_compared_with_its_embedding(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tie_word_embeddings=True)
    adapter = by_default(base, tmp_path / "adapter", lora(target_modules=["q_proj", "lm_head"]))
    assert COPY in load_file(adapter / WEIGHTS)
    assert codes(adapter, base) == {"tied_weights"}
    assert "lm_head" in read_peft_lora(adapter)[0]


@pytest.mark.parametrize("name", ["norm", "layernorm"])
def test_norms_saved_by_the_end_of_their_name_are_no_fault(name: str, tmp_path: Path) -> None:
    adapter = by_default(base_of("llama"), tmp_path / "adapter", lora(modules_to_save=[name]))
    assert sum("layernorm" in n for n in load_file(adapter / WEIGHTS)) == 4
    assert codes(adapter, base_of("llama")) == set()


@pytest.mark.parametrize("how", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["query_key_value", "lm_head"]}])
def test_the_head_of_a_pythia_is_found_under_the_name_it_has_when_loaded(how: Any, tmp_path: Path) -> None:
    shape = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}
    base = saved(tmp_path / "base", GPTNeoXConfig(**shape))
    assert "embed_out.weight" in load_file(base / "model.safetensors")
    adapter = by_default(base, tmp_path / "adapter", lora(**{"target_modules": ["query_key_value"], **how}))
    # What is random is larger than the small weights of a fresh model; every name and shape is right.
    assert codes(adapter, base) <= {"change_too_large", "change_overrides"}
