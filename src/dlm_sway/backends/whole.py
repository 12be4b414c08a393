"""One whole model as it stands: a directory, or a GGUF file whose weights are dequantised. It has no other view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.backends.hf_load import load_base, pick_device
from dlm_sway.backends.hf_sites import Sites
from dlm_sway.backends.plain_model import PlainModel
from dlm_sway.backends.torch_backend import TorchBackend
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec


class WholeModel(TorchBackend):
    """A model without an adapter; what is read of it is its base view."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        """Hold `model`, read with `tokenizer`."""
        self.id = name
        self.model = PlainModel(model.eval())
        self.device, self.dtype = model.device, model.dtype
        self.codec = TextEncoder(tokenizer, max_length=context_window(model.config, tokenizer))
        self.sites = Sites((), (), ())


def open_whole(path: Path, *, tokenizer: Any, device: str = "auto") -> WholeModel:
    """Return the model in a directory, in the dtype that it is stored in, or a GGUF file's in fp32.

    Args:
        path: directory or GGUF file.
        tokenizer: makes the tokens, whatever lies beside the model.
        device: where it computes.

    Raises:
        BadInputError: it cannot be read.
    """
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    place = pick_device(device)
    if path.is_file():
        return WholeModel(_from_gguf(path).to(place), tokenizer, name=path.name)
    return WholeModel(load_base(ModelSpec(base=str(path)), place, "auto"), tokenizer, name=path.name)


def _from_gguf(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as e:
        first = str(e).strip().splitlines()[:1]
        what = f"transformers cannot read this GGUF: {' '.join(first)[:200]}"
        raise BadInputError(what, where=path, remedy="serve it with llama.cpp and give --endpoint") from None
