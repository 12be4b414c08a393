"""An adapter added to the real model's weights by PEFT, as its users do it."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlm_sway.backends.quiet import quiet_peft


def merge(model: Path, adapter: Path, out: Path, dtype: torch.dtype = torch.float32, *, scale: float = 1.0) -> Path:
    """Write the merged model with its tokenizer and return its directory.

    Args:
        model: directory of the base.
        adapter: directory of the adapter.
        out: the directory to write.
        dtype: in which it is added and kept.
        scale: what the adapter's own scale is multiplied by; a fault where it is not 1.
    """
    base = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    with quiet_peft():
        peft = PeftModel.from_pretrained(base, str(adapter))
        for module in peft.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(scale)
        peft.merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)
    return out
