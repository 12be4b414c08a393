"""Differentiates the base along an adapter's factors: one backward pass, and no gradient of any parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.backends.hf_sites import LowRankSite, Sites

_FORMS: Final = frozenset({"linear", "embedding"})


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of a PEFT model's log-probs with respect to each B at B = 0.

    With g the gradient with respect to a module's output and z = A x its low-rank input, the gradient with respect to B
    is s sum(g z^T): a product of what hooks see on the way back. So no parameter needs a gradient of its own, the
    [d_out, d_in] gradient of W is never formed, and a quantised base works like any other.

    Attributes:
        model: the PeftModel.
        sites: its trained tensors.
        device: where it is.
    """

    model: Any
    sites: Sites
    device: torch.device

    def refusal(self) -> str | None:
        """Return why no module has a gradient, or None."""
        if self.sites.blocked is not None:
            return self.sites.blocked
        return None if self._usable() else "no trained module is a plain LoRA, whose change is linear in B"

    def factors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return B of each module that has a gradient, float32[d_out, r]."""
        return {site.name: _numpy(site.b) for site in self._usable()}

    def left_out(self) -> tuple[str, ...]:
        """Return names of what else was trained: DoRA's directions are not linear in B, convolutions are not read."""
        usable = {site.name for site in self._usable()}
        others = [site.name for site in self.sites.low_rank if site.name not in usable]
        return tuple(dict.fromkeys((*others, *(site.name for site in self.sites.dense), *self.sites.unruled)))

    def of(self, ids: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float32]]:
        """Return the gradient of the summed log-prob of `targets`, each B's float32[d_out, r].

        Args:
            ids: int64[n], what the model, which computes the base already, reads.
            targets: int64[p], the tokens that its last p logits predict.
        """
        total: dict[str, Tensor] = {}
        row = torch.from_numpy(np.ascontiguousarray(ids))[None].to(self.device)  # [1, n]
        wanted = torch.from_numpy(np.ascontiguousarray(targets))[:, None].to(self.device)  # [P, 1]
        with torch.enable_grad(), ExitStack() as hooks:
            for parameter in (p for p in self.model.parameters() if p.requires_grad):
                # What only a gradient of its own would need is then not kept on the way forward.
                hooks.callback(parameter.requires_grad_)
                parameter.requires_grad_(requires_grad=False)
            # Every module's output hangs on this zero, so that the way back passes all of them.
            root = torch.zeros((), device=self.device, requires_grad=True)
            for site in self._usable():
                handle = site.layer.register_forward_hook(_watching(site, root, total), with_kwargs=True)
                hooks.callback(handle.remove)
            logits = self.model(input_ids=row, use_cache=False, logits_to_keep=len(targets)).logits[0]  # [P, K]
            picked = torch.log_softmax(logits[-len(targets) :].float(), dim=1).gather(1, wanted)
            torch.autograd.grad(picked.sum(), root, allow_unused=True)
        zeros = {site.name: torch.zeros(site.b.shape) for site in self._usable() if site.name not in total}
        # What a text does not reach, as an expert that it is not sent to, has no slope.
        return {name: _numpy(g) for name, g in {**total, **zeros}.items()}

    def _usable(self) -> list[LowRankSite]:
        return [site for site in self.sites.low_rank if site.form in _FORMS and site.magnitude is None]


def _watching(site: LowRankSite, root: Tensor, total: dict[str, Tensor]) -> Callable[..., Tensor]:
    """Return a forward hook that adds to `total` the gradient of one module's B on the way back."""

    def after(_: Any, args: tuple[Any, ...], named: Mapping[str, Any], output: Tensor) -> Tensor:
        x = (args[0] if args else next(iter(named.values()))).detach()
        watched = output + root.to(output.dtype)

        def back(g: Tensor) -> None:
            part = _product(site, g, x)
            total[site.name] = part if site.name not in total else total[site.name] + part

        watched.register_hook(back)  # type: ignore[no-untyped-call]
        return watched

    return after


def _product(site: LowRankSite, g: Tensor, x: Tensor) -> Tensor:
    """Return s sum(g z^T) in fp32, [d_out, r]."""
    a = site.a.detach().float()  # [r, d_in], of an embedding [r, vocabulary]
    if site.form == "embedding":
        scale = site.layer._get_embed_scale()  # noqa: SLF001 (Gemma multiplies embeddings by sqrt(d); PEFT's own reading of it)
        z = a.T[x.reshape(-1)] * (1.0 if scale is None else scale.float())  # [n, r]
    else:
        z = x.reshape(-1, a.shape[1]).float() @ a.T  # [n, r]
    return site.scaling * (g.detach().reshape(-1, g.shape[-1]).float().T @ z)


def _numpy(x: Tensor) -> npt.NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).numpy()
