"""A LoRA in another state, as factors: scaled, cut, or a null in its place, for runtimes that only load folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlm_sway.adapters import nulls
from dlm_sway.adapters.convert import write_peft_lora
from dlm_sway.adapters.cuts import top_directions
from dlm_sway.adapters.lora import Lora, LoraFactors
from dlm_sway.adapters.nulls import F32
from dlm_sway.core.views import View


def variant(lora: Lora, view: View) -> dict[str, LoraFactors]:
    """Return the factors of a view; nulls are the same as those of other backends, draw for draw.

    Raises:
        BadInputError: a factor is not finite, or the view asks for a rank that there is not.
    """
    return {module: _of(factors, view, module) for module, factors in lora.items()}


def _of(factors: LoraFactors, view: View, module: str) -> LoraFactors:
    a, b, seed, draw = factors.a, factors.b, view.seed, view.draw
    if view.kind == "gaussian":
        std = view.init_scale * view.rank_scale**0.5
        a, b = (
            nulls.gaussian_like(x.shape, std=std, seed=seed, draw=draw, module=module, part=part)
            for x, part in ((a, "A"), (b, "B"))
        )
    elif view.kind == "top_rank":
        b = top_directions(a, b, share=view.rank_scale, module=module)
    elif view.kind == "sign_flip":
        b = nulls.sign_flip(a, b, seed=seed, draw=draw, module=module)
    elif view.kind == "rotation":
        a, b = nulls.rotate_rank(a, b, multiplier=view.rank_scale, seed=seed, draw=draw, module=module)
    return LoraFactors(a, b, factors.scale * view.lam)


def write_plain(lora: Mapping[str, LoraFactors], out: Path, *, base: str) -> int:
    """Write factors as a PEFT folder of one rank and scale 1, and return that rank.

    Some runtimes read neither rank nor alpha patterns, and say nothing of it. So each scale goes into its B, and
    factors of lower rank get rows and columns of zeros, which change no product.

    Args:
        lora: factors by module.
        out: the directory to write.
        base: what the config records as its base.
    """
    rank = max(factors.rank for factors in lora.values())
    plain = {module: _padded(factors, rank) for module, factors in lora.items()}
    write_peft_lora(plain, out, base=base, alpha=float(rank))
    return rank


def _padded(factors: LoraFactors, rank: int) -> LoraFactors:
    more = rank - factors.rank
    b: F32 = (np.float32(factors.scale) * factors.b).astype(np.float32)
    a = np.pad(factors.a, ((0, more), (0, 0)))
    return replace(
        factors, a=np.ascontiguousarray(a), b=np.ascontiguousarray(np.pad(b, ((0, 0), (0, more)))), scale=1.0
    )
