"""Where a PEFT model differs from its base: every trained tensor, found once, as a typed site.

A site knows its own arithmetic (what its tensors are at a scale, or under a null); `hf_overlay` puts them in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlm_sway.adapters import nulls
from dlm_sway.core.errors import NullRuleError
from dlm_sway.core.views import View

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Magnitude:
    """DoRA's magnitude vector.

    Attributes:
        trained: parameter [d_out].
        base: [d_out], row norms of the base weight: the magnitude of an untrained adapter.
    """

    trained: nn.Parameter
    base: Tensor

    def at(self, view: View, module: str) -> Tensor:
        """Return the magnitude of a view: the base's, moved by `lam` of the trained (or permuted) delta, [d_out]."""
        delta = self.trained.detach() - self.base
        if view.kind in ("rotation", "sign_flip"):
            moved = nulls.permute_magnitude(_numpy(delta), seed=view.seed, draw=view.draw, module=module)
            delta = _like(moved, self.trained)
        elif view.kind == "gaussian":
            delta = torch.zeros_like(delta)
        return self.base + view.lam * delta


@dataclass(frozen=True, slots=True)
class LowRankSite:
    """A module with factors A [r, d_in] and B [d_out, r], and for DoRA a magnitude [d_out].

    Attributes:
        name: module name in the base, the key of its null draws.
        layer: the PEFT layer.
        adapter: PEFT's name of the adapter.
        a: parameter A; for embeddings [r, vocabulary].
        b: parameter B; for embeddings [hidden, r].
        form: `linear`, `embedding` or `conv`.
        magnitude: DoRA's magnitude, or None.
    """

    name: str
    layer: Any
    adapter: str
    a: nn.Parameter
    b: nn.Parameter
    form: str
    magnitude: Magnitude | None = None

    @property
    def scaling(self) -> float:
        """Factor s of delta W = s B A."""
        return float(self.layer.scaling[self.adapter])

    def factors(self, view: View) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the null's A [r', d_in] and B [d_out, r'] (scale not included), as matrices."""
        a, b = _matrix(self.a), _matrix(self.b)
        seed, draw, module = view.seed, view.draw, self.name
        if view.kind == "rotation" and view.rank_scale == 1.0:
            return a, nulls.rotate_output(b, seed=seed, draw=draw, module=module)
        if view.kind == "rotation":
            return nulls.rotate_rank(a, b, multiplier=view.rank_scale, seed=seed, draw=draw, module=module)
        if view.kind == "sign_flip":
            return a, nulls.sign_flip(a, b, seed=seed, draw=draw, module=module)
        std = view.init_scale * view.rank_scale**0.5
        return (
            nulls.gaussian_like(a.shape, std=std, seed=seed, draw=draw, module=module, part="A"),
            nulls.gaussian_like(b.shape, std=std, seed=seed, draw=draw, module=module, part="B"),
        )

    def tensors(self, view: View) -> list[tuple[nn.Parameter, Tensor]]:
        """Return what stands in the place of A, B and the magnitude in this view (its scale apart)."""
        out: list[tuple[nn.Parameter, Tensor]] = []
        if view.kind != "adapter":
            out += [(p, _like(x, p)) for p, x in zip((self.a, self.b), self.factors(view), strict=True)]
        if self.magnitude is not None and (view.kind != "adapter" or view.lam != 1.0):
            out.append((self.magnitude.trained, self.magnitude.at(view, self.name)))
        return out


@dataclass(frozen=True, slots=True)
class DenseSite:
    """A tensor that was trained whole: `modules_to_save` and biases.

    Attributes:
        name: parameter name in the base, the key of its null draws.
        live: the parameter that the adapted model reads.
        original: the base's values.
        toggled: whether PEFT's disable_adapter already puts the base's values back.
        axis: the output side: 0, or 1 for embeddings, whose rows are looked up.
    """

    name: str
    live: nn.Parameter
    original: Tensor
    toggled: bool
    axis: int = 0

    def tensors(self, view: View) -> list[tuple[nn.Parameter, Tensor]]:
        """Return the values of this view, or nothing when the trained ones stand already."""
        if view.kind == "adapter" and view.lam == 1.0:
            return []
        delta = self.live.detach() - self.original
        if view.kind != "adapter":
            # N2 has no law for a dense delta, so it takes the rotation null's rule for it.
            side = delta.movedim(self.axis, -1)  # [..., d_out]
            perm, sign = nulls.signed_permutation(side.shape[-1], seed=view.seed, draw=view.draw, module=self.name)
            side = side[..., torch.from_numpy(perm).to(delta.device)] * torch.from_numpy(sign).to(delta)
            delta = side.movedim(-1, self.axis)
        return [(self.live, self.original + view.lam * delta)]


@dataclass(frozen=True, slots=True)
class Sites:
    """All trained tensors of an adapter, and the names of those that have no rule."""

    low_rank: tuple[LowRankSite, ...]
    dense: tuple[DenseSite, ...]
    unruled: tuple[str, ...]

    def refusal(self) -> str | None:
        """Return why no null can be drawn, naming the tensors, or None."""
        if self.unruled:
            return f"no rotation rule for {', '.join(self.unruled[:3])}" + ("..." if len(self.unruled) > 3 else "")  # noqa: PLR2004 (three names are enough)
        if not (self.low_rank or self.dense):
            return "the adapter has no trained tensor"
        return None

    def require_rules(self) -> None:
        """Refuse to calibrate an adapter with a tensor that has no rule.

        Raises:
            NullRuleError: names the tensors.
        """
        if (reason := self.refusal()) is not None:
            raise NullRuleError(reason, remedy="its probes are calibrated by N0 and N5 only")


def find_sites(model: Any, *, base_biases: dict[str, Tensor]) -> Sites:
    """Walk a PEFT model and return its sites.

    Args:
        model: the PeftModel, one adapter active.
        base_biases: the base's values of the biases that the adapter file replaced, by parameter name.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import ModulesToSaveWrapper

    adapter = model.active_adapter
    low_rank: list[LowRankSite] = []
    dense: list[DenseSite] = []
    claimed: set[int] = set()
    for full, module in model.named_modules():
        name = full.removeprefix(_PREFIX)
        if isinstance(module, LoraLayer) and (site := _low_rank(name, module, adapter)) is not None:
            low_rank.append(site)
            claimed |= {id(site.a), id(site.b)}
            claimed |= {id(site.magnitude.trained)} if site.magnitude else set()
        elif isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save:
            saved = _saved(name, module, adapter)
            dense += saved
            claimed |= {id(s.live) for s in saved}
    params = dict(model.named_parameters())
    for name, original in base_biases.items():
        dense.append(DenseSite(name.removeprefix(_PREFIX), params[name], original, toggled=False))
    unruled = [
        n.removeprefix(_PREFIX) for n, p in params.items() if _is_adapter_tensor(n, adapter) and id(p) not in claimed
    ]
    return Sites(tuple(low_rank), tuple(dense), tuple(unruled))


def _is_adapter_tensor(name: str, adapter: str) -> bool:
    return f".{adapter}" in name or "prompt_encoder" in name


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
    known = isinstance(layer, Linear | Embedding | Conv1d | Conv2d | Conv3d) or type(layer).__name__ in _QUANTISED
    if not (known and plain_variant) or (magnitude is not None and form != "linear"):
        return None
    kept = None if magnitude is None else Magnitude(magnitude, _row_norm(layer))
    return LowRankSite(name, layer, adapter, a, b, form, kept)


_QUANTISED = frozenset({"Linear4bit", "Linear8bitLt"})


def _row_norm(layer: Any) -> Tensor:
    """Return the norms of the rows of the base weight [d_out, d_in], the magnitude that DoRA starts from."""
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer.get_base_layer()).detach()
    norm: Tensor = torch.linalg.norm(weight.T if layer.fan_in_fan_out else weight, dim=1)
    return norm


def _saved(name: str, wrapper: Any, adapter: str) -> list[DenseSite]:
    original = dict(wrapper.original_module.named_parameters())
    live = wrapper.modules_to_save[adapter].named_parameters()
    axis = 1 if isinstance(wrapper.original_module, nn.Embedding) else 0
    return [DenseSite(f"{name}.{part}", p, original[part].detach(), toggled=True, axis=axis) for part, p in live]


def _numpy(x: Tensor) -> npt.NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).numpy()


def _matrix(x: Tensor) -> npt.NDArray[np.float32]:
    """Return a factor as a matrix: conv A [r, in, k...] and B [out, r, 1...] are flattened behind their first axis."""
    return _numpy(x).reshape(x.shape[0], -1)


def _like(x: npt.NDArray[np.float32], p: Tensor) -> Tensor:
    shape = p.shape if x.size == p.numel() else x.shape
    return torch.from_numpy(np.ascontiguousarray(x)).reshape(shape).to(device=p.device, dtype=p.dtype)
