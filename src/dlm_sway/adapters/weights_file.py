"""The adapter's weights file, or the fault that stands in its place."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.tensors import TensorFile

WEIGHTS_NAME: Final = "adapter_model.safetensors"
PICKLE_NAME: Final = "adapter_model.bin"


def open_weights(adapter_dir: Path) -> TensorFile | Fault:
    """Return the adapter's safetensors file, or why there is none to read.

    A pickle is refused: unpickling runs code that the file's author chose. The remedy is the command that converts
    it, through torch's restricted loader.

    Raises:
        AdapterError: the file is damaged.
    """
    path, pickle = adapter_dir / WEIGHTS_NAME, adapter_dir / PICKLE_NAME
    if not path.is_file():
        return _pickle_fault(pickle) if pickle.is_file() else _absent_fault(adapter_dir)
    if path.stat().st_size == 0:
        return _empty_fault("0 bytes")
    file = TensorFile(path)
    return file if file.infos else _empty_fault("no tensors")


def conversion_command(pickle: Path) -> str:
    """Return the shell command that turns an `adapter_model.bin` into safetensors without running its code."""
    source, target = str(pickle), str(pickle.with_name(WEIGHTS_NAME))
    script = (
        "import torch; from safetensors.torch import save_file; "
        f"weights = torch.load({source!r}, map_location='cpu', weights_only=True); "
        f"save_file({{k: v.clone().contiguous() for k, v in weights.items()}}, {target!r})"
    )
    return f"python -c {shlex.quote(script)}"


def _absent_fault(adapter_dir: Path) -> Fault:
    others = sorted(path.name for path in adapter_dir.glob("*.safetensors"))
    found = f"; it holds {', '.join(others[:3])}" if others else ""
    return Fault(
        code="no_weights",
        severity="fail",
        message=f"the directory holds no {WEIGHTS_NAME}{found}",
        remedy="save the adapter with `PeftModel.save_pretrained`",
    )


def _empty_fault(what: str) -> Fault:
    return Fault(
        code="empty_weights",
        severity="fail",
        message=f"{WEIGHTS_NAME} holds {what}",
        remedy="save the adapter again; under ZeRO-3 or FSDP gather the weights first",
    )


def _pickle_fault(pickle: Path) -> Fault:
    return Fault(
        code="pickle_weights",
        severity="fail",
        message=f"{PICKLE_NAME} is a pickle, which can run code on loading; sway does not open it",
        remedy=f"convert it: {conversion_command(pickle)}",
    )
