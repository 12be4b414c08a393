"""Mends the small model's weights with general text, so that what an adapter gains on it is what it learned.

The registry has the demo's model in 4 bits only. Any English then mends it by 0.3 to 0.4 nat per token, and an adapter
trained on whatever is "on target" for every English text. Experiments with a known truth start from a base that has had
that gain already.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dlm_sway.backends.quiet import quiet_peft
from dlm_sway.demo.noise import ALL_LINEAR
from dlm_sway.demo.train import Recipe, train_lora

MEND: Final = Recipe(rank=16, alpha=32, targets=ALL_LINEAR, steps=60, lr=1e-3, batch=8, plain=0)


def mended_base(base: Path, out: Path, *, plain: Sequence[str]) -> Path:
    """Return `out`, a copy of `base` in fp32 with an adapter of general text merged into it; made once.

    Args:
        base: model directory.
        out: directory to write.
        plain: general text.
    """
    if (out / "config.json").exists():
        return out
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = train_lora(base, out.with_name(f"{out.name}.adapter"), texts=plain, recipe=MEND)
    part = out.with_name(f"{out.name}.part")
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, use_safetensors=True)
    with quiet_peft():
        PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(str(part))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(part))
    part.rename(out)
    shutil.rmtree(adapter)
    return out
