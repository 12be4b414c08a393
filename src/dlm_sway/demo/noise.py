"""Adapters that learned nothing: pure noise on a base's shapes, and the noise twin of a trained adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.base_files import open_base
from dlm_sway.core.determinism import stream

QV: Final = ("q_proj", "v_proj")
ALL_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_noise(
    base: Path, out: Path, *, b_std: float, targets: tuple[str, ...] = QV, rank: int = 8, seed: int = 0
) -> Path:
    """Write a LoRA with A as PEFT initialises it and B Gaussian of standard deviation `b_std`; alpha is twice the rank.

    Args:
        base: model directory with safetensors; only headers are read.
        out: directory to write.
        b_std: standard deviation of B.
        targets: last components of the module names.
        rank: LoRA rank.
        seed: of both factors.
    """
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for name, (_, info) in open_base(base).parameters.items():
        module = name.removesuffix(".weight")
        if module == name or module.rsplit(".", 1)[-1] not in targets:
            continue
        d_out, d_in = info.shape
        rng = stream(seed, "noise", name)
        bound = d_in**-0.5  # kaiming_uniform(a=sqrt(5))
        a, b = rng.uniform(-bound, bound, (rank, d_in)), rng.normal(0.0, b_std, (d_out, rank))
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(targets),
        "bias": "none",
    }
    return _write(out, tensors, json.dumps(config))


def write_twin(adapter: Path, out: Path, *, seed: int = 0) -> Path:
    """Copy a PEFT directory with every B replaced by Gaussian noise of the same Frobenius norm."""
    from safetensors.numpy import load_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, value in tensors.items():
        if ".lora_B." in name or ".lora_embedding_B" in name:
            noise = stream(seed, "twin", name).standard_normal(value.shape)
            tensors[name] = (noise * (np.linalg.norm(value) / np.linalg.norm(noise))).astype(value.dtype)
    return _write(out, tensors, (adapter / "adapter_config.json").read_text(encoding="utf-8"))


def _write(out: Path, tensors: dict[str, npt.NDArray[np.float32]], config: str) -> Path:
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    (out / "adapter_config.json").write_text(config, encoding="utf-8")
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return out
