"""What a directory holds that is no PEFT adapter, so that it is not called a broken one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

MLX_WEIGHTS: Final = "adapters.safetensors"
PEFT_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
_MODEL_CONFIG: Final = "config.json"
_MODEL_WEIGHTS: Final = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin")


def is_mlx_adapter(path: Path) -> bool:
    """Return whether a directory holds an adapter of mlx_lm's."""
    return (path / MLX_WEIGHTS).is_file()


def is_whole_model(path: Path) -> bool:
    """Return whether a directory holds a model with its weights, as a full fine-tune leaves it."""
    return (path / _MODEL_CONFIG).is_file() and any(any(path.glob(name)) for name in _MODEL_WEIGHTS)


def way_with_mlx(adapter: Path) -> str | None:
    """Return what to do with an adapter of mlx_lm's where PEFT's is read; None where PEFT's own weights lie there."""
    if not is_mlx_adapter(adapter) or any((adapter / name).is_file() for name in PEFT_WEIGHTS):
        return None
    return f"`sway convert {shlex.quote(str(adapter))} --to peft -o OUT`, or a suite with `kind: mlx`"


def way_with_whole_model(path: Path) -> str:
    """Return what to do with a whole model where an adapter is read."""
    return (
        "it is a whole model: use a suite with `kind: two_model`, as in "
        f"`models: {{base: {{kind: two_model, base: BASE, options: {{finetuned: {path}}}}}, ft: {{}}}}`"
    )
