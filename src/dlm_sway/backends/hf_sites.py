"""The trained tensors of a PEFT model as typed sites.

A site knows its own arithmetic (what its tensors are at a scale, or under a null); `hf_find` finds them in a model and
`hf_overlay` puts them in place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlm_sway.adapters import nulls
from dlm_sway.adapters.drawn import drawn, magnitude_delta
from dlm_sway.adapters.spectra import input_factor, output_factor, spectrum
from dlm_sway.backends.base import RankedModule
from dlm_sway.core.errors import CannotRunError, NullRuleError
from dlm_sway.core.views import View

Pairs: TypeAlias = list[tuple[nn.Parameter, Tensor]]
"""Parameters, and what stands in their place."""

QUANTISED: Final = frozenset({"Linear4bit", "Linear8bitLt"})
_NAMED: Final = 3  # tensors that an error names


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
        if view.kind != "adapter":
            delta = _like(magnitude_delta(view, _numpy(delta), module=module), self.trained)
        return self.base + view.lam * delta


@dataclass(frozen=True, slots=True)
class LowRankSite:
    """A module with factors A [r, d_in] and B [d_out, r], and for DoRA a magnitude [d_out].

    Attributes:
        name: module name in the base, the key of its null draws.
        layer: the PEFT layer.
        adapter: PEFT's name of the adapter.
        a: parameter A; for embeddings [r, vocabulary], for convolutions [r, c_in, k, ...].
        b: parameter B; for embeddings [hidden, r], for convolutions [c_out, r, 1, ...].
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

    @property
    def is_quantised(self) -> bool:
        """Whether the base weight is packed."""
        return type(self.layer.get_base_layer()).__name__ in QUANTISED

    def weight(self) -> Tensor:
        """Return the base weight of a linear module as [d_out, d_in]; a copy where it is quantised."""
        from peft.utils.integrations import dequantize_module_weight

        weight: Tensor = dequantize_module_weight(self.layer.get_base_layer()).detach()
        return weight.T if self.layer.fan_in_fan_out else weight

    def ranked(self) -> RankedModule:
        """Return the spectrum of delta W.

        Raises:
            CannotRunError: a factor is not finite.
        """
        try:
            found = spectrum(output_factor(_numpy(self.b)), input_factor(_numpy(self.a)), scale=self.scaling)
        except np.linalg.LinAlgError:
            raise CannotRunError("a factor is not finite", where=self.name, remedy="run `sway inspect`") from None
        return RankedModule(found, self.b.shape[0])

    def draw(self, view: View) -> tuple[Tensor, Tensor]:
        """Return A and B of a null or a cut, in the shapes of the adapter's and without its scale; A itself if kept."""
        a, b = drawn(view, own := _numpy(self.a), _numpy(self.b), module=self.name)
        return self.a.detach() if a is own else _like(a, self.a), _like(b, self.b)


@dataclass(frozen=True, slots=True)
class DenseSite:
    """A tensor that was trained whole, or that the adapter replaced: `modules_to_save`, biases, embeddings.

    Attributes:
        name: parameter name in the base.
        live: the parameter that the adapted model reads.
        original: the base's values.
        toggled: whether PEFT's disable_adapter already puts the base's values back.
        axis: the output side.
        ruled: whether a null has a rule for it; one without still follows the scale, and is the base's at scale 0.
    """

    name: str
    live: nn.Parameter
    original: Tensor
    toggled: bool
    axis: int = 0
    ruled: bool = True

    @property
    def module(self) -> str:
        """Name of the module in the base, the key of its null draws: its weight and its bias turn alike."""
        return self.name.rpartition(".")[0]

    @property
    def d_out(self) -> int:
        """Number of outputs."""
        return self.live.shape[self.axis]

    def turn(self, view: View) -> tuple[Tensor, Tensor]:
        """Return a null's signed permutation of the outputs, `(perm int32[d_out], sign float32[d_out])`."""
        # N2 has no law for a dense delta, so it takes the rotation null's rule for it.
        perm, sign = nulls.signed_permutation(self.d_out, seed=view.seed, draw=view.draw, module=self.module)
        device = self.live.device
        return torch.from_numpy(perm.astype(np.int32)).to(device), torch.from_numpy(sign).to(device)

    def tensors(self, view: View) -> Pairs:
        """Return the values of this view, or nothing when the trained ones stand already."""
        if view.lam == 0.0:
            return [(self.live, self.original.to(self.live))]
        if view.kind == "adapter" and view.lam == 1.0:
            return []
        delta = self.live.detach() - self.original
        if view.kind != "adapter":
            perm, sign = self.turn(view)
            side = delta.movedim(self.axis, -1)  # [..., d_out]
            delta = (side[..., perm] * sign.to(delta)).movedim(-1, self.axis)
        return [(self.live, (self.original + view.lam * delta).to(self.live))]


@dataclass(frozen=True, slots=True)
class Sites:
    """All trained tensors of an adapter, and what stands in the way of nulls and scales.

    Attributes:
        low_rank: modules with factors.
        dense: tensors trained whole.
        unruled: names of tensors that no null has a rule for, those in `dense` among them.
        unscaled: those of them that do not follow the scale of a LoRA layer either.
        blocked: why the adapter as a whole has no null, or None.
        layers: every LoRA layer, those without a rule too; their scale follows lam.
        adapter: PEFT's name of the adapter.
    """

    low_rank: tuple[LowRankSite, ...]
    dense: tuple[DenseSite, ...]
    unruled: tuple[str, ...]
    unscaled: tuple[str, ...] = ()
    blocked: str | None = None
    layers: tuple[Any, ...] = ()
    adapter: str = "default"

    def refusal(self) -> str | None:
        """Return why no null can be drawn, naming the tensors, or None."""
        if self.blocked is not None:
            return self.blocked
        if self.unruled:
            return f"no rotation rule for {_listed(self.unruled)}"
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

    def cut_refusal(self) -> str | None:
        """Return why the adapter cannot be cut to its largest directions, naming the tensors, or None."""
        whole = tuple(s.name for s in self.dense) or self.unruled
        if self.blocked is not None or not (self.low_rank or whole):
            return self.blocked or "the adapter has no factors"
        if whole:
            return f"{_listed(whole)} is no product of two factors"
        dora = tuple(s.name for s in self.low_rank if s.magnitude is not None)
        return f"DoRA trained a magnitude beside the factors of {_listed(dora)}" if dora else None

    def require_cut(self) -> None:
        """Refuse to cut an adapter of which a part has no rank.

        Raises:
            CannotRunError: names the tensors.
        """
        if (reason := self.cut_refusal()) is not None:
            raise CannotRunError(
                f"the adapter cannot be cut to its largest directions: {reason}", remedy="only LoRA can be cut"
            )

    def within(self, module: nn.Module) -> Sites:
        """Return what there is of the sites in `module`."""
        params, layers = set(map(id, module.parameters())), set(map(id, module.modules()))
        return replace(
            self,
            low_rank=tuple(s for s in self.low_rank if id(s.layer) in layers),
            dense=tuple(s for s in self.dense if id(s.live) in params),
            layers=tuple(x for x in self.layers if id(x) in layers),
        )

    def scale_refusal(self) -> str | None:
        """Return why the adapter's effect cannot be scaled, naming the tensors, or None."""
        return f"{_listed(self.unscaled)} has no scale" if self.unscaled else None

    def rounding_refusal(self) -> str | None:
        """Return why nulls and scales of tensors trained whole cannot be put into the model itself, or None.

        In 16 bits `original + lam delta` is rounded to steps that may be larger than the delta; the fine-tune is not.
        """
        coarse = tuple(s for s in self.dense if s.live.dtype in (torch.bfloat16, torch.float16))
        if not coarse:
            return None
        dtype = str(coarse[0].live.dtype).removeprefix("torch.")
        return f"{dtype} would round the nulls and scales of {_listed(tuple(s.name for s in coarse))}; use --dtype fp32"

    def require_scale(self) -> None:
        """Refuse to scale an adapter with a tensor that knows no scale.

        Raises:
            CannotRunError: names the tensors.
        """
        if (reason := self.scale_refusal()) is not None:
            raise CannotRunError(
                f"the adapter cannot be scaled: {reason}", remedy="only LoRA and tensors trained whole can be scaled"
            )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + ("..." if len(names) > _NAMED else "")


def _numpy(x: Tensor) -> npt.NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).numpy()


def _like(x: npt.NDArray[np.float32], p: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).reshape(p.shape).to(device=p.device, dtype=p.dtype)
