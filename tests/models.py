"""Tiny models and adapters, built here: two layers of random weights that differ wherever a real model would."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec

CHAT: Final = (
    "{% for m in messages %}{{ '<s>' if m.role != 'assistant' }}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]"
    "{% endfor %}[assistant]"
)
_SHAPE: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
QV: Final = {"gpt2": ["c_attn"]}
EMBEDDING: Final = {"gpt2": "wte"}


ARCHITECTURES: Final = ("llama", "gpt2", "qwen2", "gemma3")
LOW_RANK: Final = ("qv", "all-linear", "rslora", "ranks", "embedding", "lm_head", "dora")
DENSE: Final = (
    "saved-head", "saved-norm", "saved-embedding", "saved-block", "saved-all", "bias-all", "bias-lora-only",
)  # fmt: skip
STACKED: Final = LOW_RANK + DENSE
VIEW_BY_VIEW: Final = ("dora-bias",)
NO_NULL: Final = ("lora-bias", "pissa", "alora", "dora-embedding", "ia3", "prompt", "prefix")


@cache
def base_of(arch: str) -> Path:
    """Return the directory of a base, made once a process."""
    return save_base(_root() / arch, arch)


@cache
def adapter_of(arch: str, kind: str) -> Path:
    """Return the directory of an adapter, made once a process."""
    return save_adapter(base_of(arch), _root() / f"{arch}-{kind}", adapter_config(kind, arch))


@cache
def backend_of(arch: str, kind: str, dtype: str = "fp32") -> HuggingFaceDifferentialBackend:
    """Return a backend, opened once a process: leave it as it was."""
    return open_backend(base_of(arch), adapter_of(arch, kind), dtype=dtype)


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="sway-tiny-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def byte_tokenizer(
    *,
    bos: bool = True,
    pad: bool = True,
    append_eos: bool = False,
    merges: tuple[tuple[str, str], ...] = (),
    template: str | None = None,
) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer; `bos` and `append_eos` say which special tokens it puts around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *alphabet, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    if bos or append_eos:
        single = ["<s>"] * bos + ["$A"] + ["</s>"] * append_eos
        inner.post_processor = processors.TemplateProcessing(
            single=" ".join(single), special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    special = {"eos_token": "</s>"} | ({"bos_token": "<s>"} if bos else {}) | ({"pad_token": "</s>"} if pad else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    tokenizer.chat_template = template
    return tokenizer


def config_of(arch: str, **changes: Any) -> Any:
    """Return the config of an architecture: llama, gpt2, qwen2 (biases), mistral, gemma3 (soft cap)."""
    shape = {"vocab_size": 300, "max_position_embeddings": 128, **_SHAPE, **changes}
    if arch == "gpt2":
        return GPT2Config(
            vocab_size=shape["vocab_size"],
            n_positions=shape["max_position_embeddings"],
            n_embd=shape["hidden_size"],
            n_layer=2,
            n_head=4,
            tie_word_embeddings=shape["tie_word_embeddings"],
            bos_token_id=0,
            eos_token_id=1,
        )
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if arch == "gemma3":
        return Gemma3TextConfig(**shape, **special, head_dim=8, sliding_window=16, final_logit_softcapping=5.0)
    if arch == "mistral":
        return MistralConfig(**shape, **special, head_dim=8, sliding_window=16)
    return {"llama": LlamaConfig, "qwen2": Qwen2Config}[arch](**shape, **special)


def save_base(out: Path, arch: str = "llama", *, tokenizer: Any = None, **changes: Any) -> Path:
    """Save a model of random weights and its tokenizer, and return the directory."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_of(arch, **changes))
        _shake(model.named_parameters(), std=0.2)
    model.save_pretrained(out)
    (tokenizer or byte_tokenizer()).save_pretrained(out)
    return out


def save_adapter(
    base: Path,
    out: Path,
    config: Any,
    *,
    std: float = 0.2,
    change: Callable[[Any], None] = id,
    save_embedding_layers: bool = False,
) -> Path:
    """Save an adapter whose trained tensors all differ from their start, and return the directory.

    Args:
        base: directory of the base.
        out: directory to write.
        config: PEFT config.
        std: how far trained tensors move.
        change: does what else is to be done to the PEFT model before it is saved.
        save_embedding_layers: whether embeddings are saved with it, which PEFT does of its own where they are trained.
    """
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # PEFT's remarks on how the adapter is made are no concern here
        torch.manual_seed(1)
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        _shake(((n, p) for n, p in model.named_parameters() if p.requires_grad), std=std)
        change(model)
        model.save_pretrained(out, save_embedding_layers=save_embedding_layers)
    return out


def lora(arch: str = "llama", **options: Any) -> Any:
    """Return a LoRA config for an architecture; q and v (of GPT-2: the fused c_attn) unless told otherwise."""
    given = {"r": 4, "lora_alpha": 8, "target_modules": QV.get(arch, ["q_proj", "v_proj"]), **options}
    return peft.LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=arch == "gpt2", **given)


def adapter_config(kind: str, arch: str) -> Any:
    """Return the PEFT config of one of `ADAPTERS`."""
    qv, embedding = QV.get(arch, ["q_proj", "v_proj"]), EMBEDDING.get(arch, "embed_tokens")
    pattern = {"gpt2": "h.1.attn.c_attn"}.get(arch, "layers.1.self_attn.q_proj")
    norm, layers, inner = {"gpt2": ("ln_f", "h", "ln_1")}.get(arch, ("norm", "layers", "input_layernorm"))
    if kind == "ia3":
        forward = {"gpt2": "mlp.c_proj"}.get(arch, "down_proj")
        return peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=[*qv, forward],
            feedforward_modules=[forward],
            fan_in_fan_out=arch == "gpt2",
        )
    if kind == "prompt":
        return peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    if kind == "prefix":
        return peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    options: dict[str, Any] = {
        "qv": {},
        "all-linear": {"target_modules": "all-linear"},
        "rslora": {"use_rslora": True},
        "ranks": {"target_modules": "all-linear", "rank_pattern": {pattern: 7}, "alpha_pattern": {pattern: 3}},
        "embedding": {"target_modules": [*qv, embedding]},
        "lm_head": {"target_modules": [*qv, "lm_head"]},
        "dora": {"use_dora": True, "target_modules": "all-linear"},
        "saved-head": {"modules_to_save": ["lm_head"]},
        "saved-norm": {"modules_to_save": [norm]},
        "saved-embedding": {"modules_to_save": [embedding]},
        "saved-block": {"modules_to_save": [f"{layers}.1.mlp"]},
        "saved-all": {"modules_to_save": [embedding, f"{layers}.0.mlp", f"{layers}.1.{inner}", norm, "lm_head"]},
        "dora-bias": {"use_dora": True, "bias": "all"},
        "bias-all": {"bias": "all"},
        "bias-lora-only": {"bias": "lora_only"},
        "lora-bias": {"lora_bias": True},
        "pissa": {"init_lora_weights": "pissa"},
        "olora": {"init_lora_weights": "olora"},
        "alora": {"alora_invocation_tokens": byte_tokenizer(bos=False)("he")["input_ids"]},
        "dora-embedding": {"use_dora": True, "target_modules": [*qv, embedding]},
    }[kind]
    return lora(arch, **options)


def open_backend(base: Path, adapter: Path, **spec: Any) -> HuggingFaceDifferentialBackend:
    """Open a backend on the CPU, in fp32 unless told otherwise."""
    given = ModelSpec(base=str(base), **{"dtype": "fp32", "device": "cpu", **spec})
    return HuggingFaceDifferentialBackend(base_spec=given, adapter_path=adapter)


def _shake(parameters: Any, *, std: float) -> None:
    """Move parameters away from where they are; what is a vector of ones or zeros moves less, so that nothing blows."""
    with torch.no_grad():
        for name, p in parameters:
            step = torch.randn_like(p) * std
            if p.dim() > 1 and "magnitude" not in name:
                p.copy_(step if std > 0 else p)
            else:
                p.add_(step * 0.5)
