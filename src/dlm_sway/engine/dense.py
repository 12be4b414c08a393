"""The stacked forward of tensors that were trained whole: what was learned is computed once and turned a view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dlm_sway.backends.hf_overlay import swapped
from dlm_sway.engine.factors import Turns
from dlm_sway.engine.seats import Seat, Seats, unit_response

Forward: TypeAlias = Callable[..., Tensor]


@contextmanager
def at_base(seats: Seats) -> Iterator[None]:
    """Let tensors that were trained in the base's own place hold the base's values inside the block."""
    every = [site for seat in seats.seats for site in seat.sites.values() if not site.toggled]
    with swapped([(site.live, site.original.to(site.live)) for site in every]):
        yield


def through(module: Any) -> Forward:
    """Return a forward that calls another module; the forward of a wrapper that chooses nothing."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = module(*args, **kwargs)
        return out

    return forward


def trained_values(seat: Seat) -> list[tuple[Any, Tensor]]:
    """Return the trained tensors of a seat whose base holds them; ask before `at_base`."""
    return [(site.live, site.live.data) for site in seat.sites.values() if not site.toggled]


def dense_forward(seat: Seat, turns: Turns, trained: list[tuple[Any, Tensor]]) -> Forward:
    """Return the forward of `seat.layer` that computes all views of a pass.

    Args:
        seat: the module.
        turns: what its outputs are turned by.
        trained: its `trained_values`.
    """
    inner = seat.layer.forward  # as it is now: oneDNN's, or one that accelerate put there
    if seat.form == "output":
        return _output(inner, seat.trained if seat.site.toggled else None, turns, trained)
    values = {id(p): value for p, value in trained}
    moved = {
        leaf: turns.of(values.get(id(site.live), site.live.detach()).float() - site.original.float())
        for leaf, site in seat.sites.items()
    }  # [V, 1, d] each
    return _shifted(inner, moved["bias"]) if seat.form == "shift" else _norm(inner, seat.layer.weight, moved)


def _output(inner: Forward, copy: Any, turns: Turns, trained: list[tuple[Any, Tensor]]) -> Forward:
    def learned(x: Tensor) -> Tensor:
        with swapped(trained):
            out: Tensor = inner(x) if copy is None else copy(x)
        return out

    def forward(x: Tensor) -> Tensor:
        y = inner(x)  # [V * N, ..., d_out]
        rows = turns.rows.tolist()
        if not rows:  # a broken adapter must not reach the base
            return y
        views = x.reshape(turns.n_views, -1, *x.shape[1:])
        flat = y.reshape(turns.n_views, -1, y.shape[-1])  # [V, n, d_out]
        z = learned(views[turns.rows].flatten(0, 1)).reshape(len(rows), -1, y.shape[-1])  # [U, n, d_out]
        for u, v in enumerate(rows):
            before = flat[v].float()
            delta = (z[u].float() - before).index_select(-1, turns.perm[u])
            flat[v] = delta.mul_(turns.scale[u]).add_(before)
        return flat.reshape(y.shape)

    return forward


def _shifted(inner: Forward, bias: Tensor) -> Forward:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = inner(x, *args, **kwargs)
        flat = y.reshape(bias.shape[0], -1, y.shape[-1])  # [V, n, d_out]
        return (flat + bias).to(y.dtype).reshape(y.shape)

    return forward


def _norm(inner: Forward, weight: Any, moved: dict[str, Tensor]) -> Forward:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = inner(x, *args, **kwargs)
        _, n = unit_response(inner, weight, x, *args, **kwargs)
        flat, unit = (t.reshape(moved["weight"].shape[0], -1, y.shape[-1]) for t in (y, n))  # [V, n, d]
        out = torch.addcmul(flat.float(), unit.float(), moved["weight"])
        if "bias" in moved:
            out += moved["bias"]
        return out.to(y.dtype).reshape(y.shape)

    return forward
