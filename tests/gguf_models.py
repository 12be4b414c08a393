"""Tiny models as llama.cpp loads them, written tensor by tensor, and a server on loopback that runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from safetensors.numpy import load_file

from dlm_sway.adapters.gguf_names import names_of

NORMAL, CONTROL, UNUSED = 1, 3, 5
_OTHERS: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_NORMS: Final = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def save_gguf(model: Path, out: Path, *, template: str | None = None, add_bos: bool = True, quant: str = "F32") -> Path:
    """Write a Llama directory as a GGUF file and return it.

    Args:
        model: directory with config.json, model.safetensors and tokenizer.json.
        out: the file to write.
        template: the chat template that the file carries; None for the tokenizer's own.
        add_bos: what the file says of a bos in front of each text.
        quant: type of the matrices, such as Q4_0; norms stay F32.
    """
    config = json.loads((model / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    n_heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // n_heads)
    writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10000.0))
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, model, config, template=template, add_bos=add_bos)
    _add_tensors(writer, model, quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def save_tensors(out: Path, architecture: str, tensors: Mapping[str, Any], *, quant: str = "F32") -> Path:
    """Write tensors under llama.cpp's names as a GGUF file, matrices in a type such as Q8_0, and return it."""
    writer, kind = gguf.GGUFWriter(out, architecture), gguf.GGMLQuantizationType[quant]
    for name, value in tensors.items():
        packed = quant != "F32" and value.ndim == 2
        data = gguf.quants.quantize(value, kind) if packed else np.ascontiguousarray(value)
        writer.add_tensor(name, data, raw_dtype=kind if packed else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _add_tokenizer(writer: Any, model: Path, config: Any, *, template: str | None, add_bos: bool) -> None:
    inner = json.loads((model / "tokenizer.json").read_text())
    vocab, special = inner["model"]["vocab"], {t["content"] for t in inner["added_tokens"]}
    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    kinds = [UNUSED] * len(tokens)
    for token, i in (vocab | {t["content"]: t["id"] for t in inner["added_tokens"]}).items():
        tokens[i], kinds[i] = token, CONTROL if token in special else NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if len(vocab) > 1000 else "default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in inner["model"]["merges"]] or ["Ġ t"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(add_bos)
    own = model / "chat_template.jinja"
    template = own.read_text() if template is None and own.is_file() else template
    if template is not None:
        writer.add_chat_template(template)


def _add_tensors(writer: Any, model: Path, quant: str) -> None:
    names = names_of(model)
    weights = load_file(model / "model.safetensors")
    kind = gguf.GGMLQuantizationType[quant]
    for name, value in weights.items():
        module = name.removesuffix(".weight")
        rows = names.to_gguf(module, value.astype(np.float32)) if value.ndim == 2 else value.astype(np.float32)
        packed = kind is not gguf.GGMLQuantizationType.F32 and value.ndim == 2
        data = gguf.quants.quantize(rows, kind) if packed else rows
        writer.add_tensor(_gguf_name(name, names), data, raw_dtype=kind if packed else None)


def _gguf_name(name: str, names: Any) -> str:
    module = name.removesuffix(".weight")
    if module in names.weights:
        return str(names.weights[module])
    if name in _OTHERS:
        return _OTHERS[name]
    _, _, layer, norm, _ = name.split(".")
    return f"blk.{layer}.{_NORMS[norm]}.weight"


@contextmanager
def serving(
    model: Path, loras: Sequence[Path] = (), *, n_ctx: int = 128, n_parallel: int = 1, n_threads: int = 1
) -> Iterator[str]:
    """Serve a GGUF file on a free port of 127.0.0.1, with LoRA files at scale 1, and yield the address."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.port = n_ctx * n_parallel, n_parallel, 0
    params.hostnames = ["127.0.0.1"]
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    # Its flash attention computes in 16 bits: off by 0.004 nat here, where without it 2e-6 is left.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity = -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # by default it rounds to 16 bits
    adapters = []
    for path in loras:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = str(path), 1.0
        adapters.append(info)
    params.lora_adapters = adapters
    server = xllamacpp.Server(params)
    try:
        yield str(server.listening_address)
    finally:
        del server
