"""The noise twin of an adapter: same shapes, same norms, random B. It learned nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from dlm_sway.core.determinism import stream


def write_twin(adapter: Path, out: Path, *, seed: int = 0) -> Path:
    """Copy a PEFT directory with every B replaced by Gaussian noise of the same Frobenius norm."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, value in tensors.items():
        if ".lora_B." in name or ".lora_embedding_B" in name:
            noise = stream(seed, "twin", name).standard_normal(value.shape)
            tensors[name] = (noise * (np.linalg.norm(value) / np.linalg.norm(noise))).astype(value.dtype)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(adapter / "adapter_config.json", out / "adapter_config.json")
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return out
