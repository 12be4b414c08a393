"""Finds where a PEFT model differs from its base: every trained tensor, once, as a typed site."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from dlm_sway.adapters.config import holds_base
from dlm_sway.adapters.null_rules import has_rule_whole
from dlm_sway.backends.hf_sites import QUANTISED, DenseSite, LowRankSite, Magnitude, Sites

_PREFIX: Final = "base_model.model."
KEPT_COPY: Final = ".original_module."
"""In the names of what PEFT's `modules_to_save` keeps of the base."""
_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_sites(model: Any, *, base_values: dict[str, Tensor]) -> Sites:
    """Walk a PEFT model and return its sites.

    Args:
        model: the PeftModel, one adapter active.
        base_values: the base's values of the parameters that loading the adapter changed, by parameter name.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import ModulesToSaveWrapper

    adapter = model.active_adapter
    low_rank: list[LowRankSite] = []
    dense: list[DenseSite] = []
    layers: list[Any] = []
    for full, module in model.named_modules():
        name = name_in_base(full)
        if isinstance(module, LoraLayer) and adapter in module.scaling:
            layers.append(module)
            if (site := _low_rank(name, module, adapter)) is not None:
                low_rank.append(site)
        elif isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save:
            dense += _saved(name, module, adapter)
    dense += [_replaced(model, name, original) for name, original in base_values.items()]
    # Tied modules are wrapped each, around one tensor.
    dense = list({id(s.live): s for s in reversed(dense)}.values())[::-1]
    claimed = {id(p) for s in low_rank for p in _params(s)} | {id(s.live) for s in dense}
    scaled = {id(p) for layer in layers for p in _scaled_params(layer)}
    params = {n: p for n, p in model.named_parameters() if _is_adapter_tensor(n, adapter) and id(p) not in claimed}
    unruled = (*map(name_in_base, params), *unruled_of(dense))
    unscaled = tuple(name_in_base(n) for n, p in params.items() if id(p) not in scaled)
    blocked = why_blocked(model.peft_config[adapter])
    return Sites(tuple(low_rank), tuple(dense), unruled, unscaled, blocked, tuple(layers), adapter)


def why_blocked(config: Any) -> str | None:
    """Return why an adapter with this PEFT config has no null whatever its tensors are, or None."""
    init = getattr(config, "init_lora_weights", True)
    if holds_base(init):  # turning B at random would take that part from the model: no unstructured change
        return f"init_lora_weights is {init!r}, so its factors also hold a part of the base"
    if parameters := getattr(config, "target_parameters", None):
        return f"target_parameters names {', '.join(parameters)}, whose output side is not known"
    return None


def name_in_base(name: str) -> str:
    """Return the base's name of a module or parameter, from that in a PEFT model or in an adapter file."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(KEPT_COPY, ".")


def _is_adapter_tensor(name: str, adapter: str) -> bool:
    return f".{adapter}" in name or "prompt_encoder" in name


def _params(site: LowRankSite) -> list[nn.Parameter]:
    return [site.a, site.b, *([site.magnitude.trained] if site.magnitude else [])]


def _scaled_params(layer: Any) -> list[nn.Parameter]:
    """Return what PEFT multiplies by the layer's scaling; a magnitude is not."""
    return [p for name, p in layer.named_parameters() if "lora_magnitude_vector" not in name]


def _low_rank(name: str, layer: Any, adapter: str) -> LowRankSite | None:
    from peft.tuners.lora.layer import Conv1d, Conv2d, Conv3d, Embedding, Linear

    magnitude = layer.lora_magnitude_vector[adapter].weight if adapter in layer.lora_magnitude_vector else None
    plain_variant = adapter not in layer.lora_variant or magnitude is not None
    if adapter in layer.lora_embedding_A and isinstance(layer, Embedding):
        a, b, form = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter], "embedding"
    elif adapter in layer.lora_A and hasattr(layer.lora_A[adapter], "weight"):
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        form = "conv" if isinstance(layer, Conv1d | Conv2d | Conv3d) else "linear"
    else:
        return None
    # QLoRA and friends subclass LoraLayer with a forward that is base + s B A x, like Linear; a ParamWrapper
    # (experts in one 3-D tensor) and variants other than DoRA are not, so they stay without a rule.
    known = isinstance(layer, Linear | Embedding | Conv1d | Conv2d | Conv3d) or type(layer).__name__ in QUANTISED
    # In a grouped convolution an output sees only its group of B's inputs, so rotating B mixes groups.
    grouped = form == "conv" and layer.get_base_layer().groups > 1
    if not (known and plain_variant) or grouped or (magnitude is not None and form != "linear"):
        return None
    site = LowRankSite(name, layer, adapter, a, b, form)
    return site if magnitude is None else _with_magnitude(site, magnitude)


def _with_magnitude(site: LowRankSite, magnitude: nn.Parameter) -> LowRankSite:
    kept = Magnitude(magnitude, torch.linalg.norm(site.weight(), dim=1))
    return LowRankSite(site.name, site.layer, site.adapter, site.a, site.b, site.form, kept)


def _saved(name: str, wrapper: Any, adapter: str) -> list[DenseSite]:
    original = dict(wrapper.original_module.named_parameters())
    module = wrapper.modules_to_save[adapter]
    return [
        dense_site(module, part, original[part].detach(), name=f"{name}.{part}", toggled=True)
        for part, _ in module.named_parameters()
    ]


def _replaced(model: Any, name: str, original: Tensor) -> DenseSite:
    return dense_site(model, name, original, name=name_in_base(name), toggled=False)


def dense_site(module: nn.Module, part: str, original: Tensor, *, name: str, toggled: bool) -> DenseSite:
    """Return the site of a tensor trained whole.

    Args:
        module: what holds it.
        part: its parameter name in `module`.
        original: the base's values.
        name: its parameter name in the base.
        toggled: whether PEFT's disable_adapter puts the base's values back.
    """
    live, owner = module.get_parameter(part), module.get_submodule(part.rpartition(".")[0])
    ruled = has_rule_whole(name) and _has_output_axis(owner, live, leaf=part.rpartition(".")[2])
    return DenseSite(name, live, original, toggled, _output_axis(owner, live), ruled)


def unruled_of(dense: Iterable[DenseSite]) -> tuple[str, ...]:
    """Return names of the tensors trained whole that no null has a rule for."""
    return tuple(site.name for site in dense if not site.ruled)


def _has_output_axis(owner: nn.Module, live: Tensor, *, leaf: str) -> bool:
    """Return whether one axis is the outputs; experts may lie in one bare `weight`, [E, d_out, d_in]."""
    return isinstance(owner, _CONVOLUTIONS) or live.dim() <= (1 if leaf == "bias" else 2)


def _output_axis(owner: nn.Module, live: Tensor) -> int:
    """Return the axis of the outputs: embeddings look rows up, and GPT-2's Conv1D stores its weight as [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return int(live.dim() > 1 and isinstance(owner, nn.Embedding | Conv1D))
