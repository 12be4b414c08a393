"""Finds where tensors that were trained whole have a stacked form: by what the module is, never by its name.

What a module trained whole adds to its outputs is `delta(x) = trained(x) - base(x)`. A null turns that vector, so the
trained weight is applied once for all views and no view needs a weight of its own. Three forms:

    output   linear maps and embeddings: y[v] = base(x) + lam[v] sign_v perm_v delta(x)
    shift    only a bias was trained: what is added does not depend on x
    norm     y = w * n(x) + b element by element, so delta(w) itself is turned
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from dlm_sway.backends.hf_overlay import swapped
from dlm_sway.backends.hf_sites import QUANTISED, DenseSite, Sites

Form: TypeAlias = Literal["output", "shift", "norm"]

_ROUGH = {torch.float32: 1e-4}  # of the largest value; what is not affine is off by about all of it
_ROUGHLY = 0.05  # in 16 bits


@dataclass(frozen=True, slots=True)
class Seat:
    """A module that holds tensors trained whole.

    Attributes:
        layer: the module that runs in a stacked pass, with the base's values.
        trained: the module that holds the trained values: PEFT's copy, or `layer` where they stand in the base.
        form: how what was learned enters the outputs.
        sites: its trained tensors by their name in the module, all with the same number of outputs.
    """

    layer: Any
    trained: Any
    form: Form
    sites: Mapping[str, DenseSite]

    @property
    def site(self) -> DenseSite:
        """One of the sites; all of a module turn alike."""
        return next(iter(self.sites.values()))


@dataclass(frozen=True, slots=True)
class Seats:
    """All modules with tensors trained whole, and PEFT's wrappers that would choose between base and copy."""

    seats: tuple[Seat, ...] = ()
    wrappers: tuple[Any, ...] = ()


def find_seats(model: Any, sites: Sites) -> Seats | None:
    """Return where the dense sites sit, or None where one has no stacked form.

    A tensor that two modules hold has none: an embedding's outputs are the inputs of the head tied to it.
    """
    from peft.utils.other import ModulesToSaveWrapper

    if not sites.dense:
        return Seats()
    every = list(model.modules())
    wrappers = tuple(m for m in every if isinstance(m, ModulesToSaveWrapper) and sites.adapter in m.modules_to_save)
    layers = _originals(wrappers, sites.adapter)
    if layers is None:
        return None
    holders: dict[int, list[tuple[Any, str]]] = defaultdict(list)
    for module in every:
        for leaf, p in module.named_parameters(recurse=False):
            holders[id(p)].append((module, leaf))
    found: dict[int, tuple[Any, dict[str, DenseSite]]] = {}
    for site in sites.dense:
        if len(holders[id(site.live)]) != 1:
            return None
        ((module, leaf),) = holders[id(site.live)]
        found.setdefault(id(module), (module, {}))[1][leaf] = site
    scaled_by_dora = {id(s.layer.get_base_layer()) for s in sites.low_rank if s.magnitude is not None}
    seats: list[Seat] = []
    for trained, leaves in found.values():
        layer = layers.get(id(trained), trained)
        form = None if id(layer) in scaled_by_dora else _form(layer, leaves)
        if form is None:
            return None
        seats.append(Seat(layer, trained, form, leaves))
    return Seats(tuple(seats), wrappers)


def _originals(wrappers: tuple[Any, ...], adapter: str) -> dict[int, Any] | None:
    """Return the base's counterpart of each module in a saved copy, by identity; None where they are not alike."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    out: dict[int, Any] = {}
    for wrapper in wrappers:
        theirs = dict(wrapper.original_module.named_modules())
        for name, module in wrapper.modules_to_save[adapter].named_modules():
            if isinstance(module, BaseTunerLayer) or type(theirs.get(name)) is not type(module):
                return None
            out[id(module)] = theirs[name]
    return out


def _form(layer: Any, leaves: Mapping[str, DenseSite]) -> Form | None:
    from transformers.pytorch_utils import Conv1D

    if not set(leaves) <= {"weight", "bias"}:
        return None
    if isinstance(layer, nn.Linear | Conv1D):
        if "weight" not in leaves:
            return "shift"
        return None if type(layer).__name__ in QUANTISED else "output"
    if isinstance(layer, nn.Embedding):
        return "output"
    if any(site.live.dim() != 1 for site in leaves.values()) or not _is_affine(layer):
        return None
    return "norm" if "weight" in leaves else "shift"


@torch.inference_mode()
def _is_affine(layer: Any) -> bool:
    """Return whether the outputs are w * n(x) + b, element by element, whatever n is."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if weight is None or set(layer._parameters) > {"weight", "bias"}:  # noqa: SLF001 (names, those of None too)
        return False
    size = weight.numel()
    other = torch.linspace(0.5, 1.5, size).to(weight)
    x = torch.linspace(-1, 1, 2 * size).to(weight).reshape(1, 2, size)
    try:
        with swapped([] if bias is None else [(bias, torch.zeros_like(bias))]):
            zero, n = unit_response(layer.forward, weight, x)
            with swapped([(weight, other)]):
                whole = layer(x)
        shift = 0 * zero if bias is None else other
        with swapped([(weight, other)] + ([] if bias is None else [(bias, other)])):
            shifted = layer(x)
    except (TypeError, RuntimeError, ValueError, IndexError):
        return False  # it reads something else than rows of as many features as it has weights
    pairs = ((zero + other * n, whole), (whole + shift, shifted))
    room = _ROUGH.get(weight.dtype, _ROUGHLY)
    return all(a.shape == x.shape and bool((a - b).abs().max() <= room * b.abs().max()) for a, b in pairs)


def unit_response(forward: Any, weight: nn.Parameter, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return the outputs at weights of zero, and what a weight of one adds to them."""
    with swapped([(weight, torch.zeros_like(weight))]):
        zero: Tensor = forward(x, *args, **kwargs)
    with swapped([(weight, torch.ones_like(weight))]):
        one: Tensor = forward(x, *args, **kwargs)
    return zero, one - zero
