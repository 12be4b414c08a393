"""The low-rank factors and signed permutations of many views: drawn once, stacked for a pass, bounded in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlm_sway.backends.hf_sites import DenseSite, LowRankSite
from dlm_sway.core.views import View

_TURN_BYTES = 12  # an output: its place, its sign, and what a vector is moved by


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank factors of one module for the views of a pass.

    Attributes:
        a_t: [d_in, r] when all views share A, else [V, d_in, r].
        b_t: [V, r, d_out], s * lam[v] * B_v^T, for DoRA times m_v / n_v; zero for the base.
        growth: DoRA's m_v / n_v - 1, [V, 1, d_out], zero for the base; None for plain LoRA.
    """

    a_t: Tensor
    b_t: Tensor
    growth: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Turns:
    """What the views of a pass do to the outputs that a module trained whole adds; U of them are not the base.

    Attributes:
        n_views: V.
        rows: int64[U], which views.
        perm: int32[U, d_out], where each output is taken from.
        scale: float32[U, d_out], sign times lam.
    """

    n_views: int
    rows: Tensor
    perm: Tensor
    scale: Tensor

    def of(self, delta: Tensor) -> Tensor:
        """Return a vector as each view has it, [V, 1, d_out], zero for the base."""
        out = delta.new_zeros(self.n_views, 1, len(delta))
        out[self.rows, 0] = delta.index_select(0, self.perm.flatten()).reshape(self.perm.shape) * self.scale
        return out


class FactorStore:
    """Null factors by (site, draw), made once: rotating 39 draws of 210 modules again for every pass would cost more
    than the pass. The factors of the last pass stay stacked, since the next chunk mostly has the same views."""  # noqa: D205, D209 (one sentence)

    def __init__(self, *, max_bytes: int) -> None:
        """Keep at most `max_bytes` of single draws, and about as many of a stacked pass; the rest is made again."""
        self.max_bytes = max_bytes
        self._kept: dict[tuple[str, View], tuple[Tensor, Tensor]] = {}
        self._room = max_bytes
        self._pass: tuple[tuple[View, ...], tuple[Factors, ...]] = ((), ())
        self._turns: tuple[tuple[View, ...], tuple[Turns, ...]] = ((), ())

    def get(self, site: LowRankSite, view: View) -> tuple[Tensor, Tensor]:
        """Return A [r, d_in] and B [d_out, r] of the view, scale not included; A itself where the view keeps it."""
        if view.kind == "adapter":
            return site.a.detach(), site.b.detach()
        key = (site.name, replace(view, lam=1.0))
        if (found := self._kept.get(key)) is not None:
            return found
        a, b = site.draw(view)
        self._keep(key, (a, b), _bytes(b) + (_bytes(a) if _own_a(view) else 0))
        return a, b

    def turn(self, site: DenseSite, view: View) -> tuple[Tensor, Tensor]:
        """Return the signed permutation of the view, scale not included; the identity for the adapter's own."""
        device = site.live.device
        if view.kind == "adapter":
            return torch.arange(site.d_out, dtype=torch.int32, device=device), torch.ones(site.d_out, device=device)
        key = (site.name, replace(view, lam=1.0))
        if (found := self._kept.get(key)) is None:
            found = site.turn(view)
            self._keep(key, found, sum(map(_bytes, found)))
        return found

    def _keep(self, key: tuple[str, View], drawn: tuple[Tensor, Tensor], size: int) -> None:
        if size <= self._room:
            self._kept[key] = drawn
            self._room -= size

    def views_per_pass(
        self, sites: Sequence[LowRankSite], views: Sequence[View], dense: Sequence[DenseSite] = ()
    ) -> int:
        """Return how many of `views` can be stacked at once within the bound, at least one; the base is not counted."""
        sizes = [_bytes(s.b) + (_bytes(s.a) if any(map(_own_a, views)) else 0) for s in sites]
        sizes += [_TURN_BYTES * s.d_out for s in dense]
        return max(1, self.max_bytes // sum(sizes) - 1)

    def stack(self, sites: Sequence[LowRankSite], views: Sequence[View]) -> tuple[Factors, ...]:
        """Return the factors of `views`, the base first, for each module."""
        if self._pass[0] != tuple(views):
            self._pass = ((), ())  # so that two passes are never held together
            self._pass = (tuple(views), tuple(stack_factors(site, views, self) for site in sites))
        return self._pass[1]

    def turns(self, sites: Sequence[DenseSite], views: Sequence[View]) -> tuple[Turns, ...]:
        """Return what `views` do to the outputs of each module."""
        if self._turns[0] != tuple(views):
            self._turns = ((), ())
            self._turns = (tuple(views), tuple(stack_turns(site, views, self) for site in sites))
        return self._turns[1]


def stack_factors(site: LowRankSite, views: Sequence[View], store: FactorStore) -> Factors:
    """Return the factors of `views`, the base first, for one module."""
    pairs = [store.get(site, v) for v in views]
    a_t = site.a.detach().T  # [d_in, r]
    if any(map(_own_a, views)):
        a_t = torch.stack([a.T for a, _ in pairs])  # [V, d_in, r]
    b_t = torch.zeros(len(views), *reversed(site.b.shape), dtype=site.b.dtype, device=site.b.device)
    for v, ((_, b), view) in enumerate(zip(pairs, views, strict=True)):
        if view.lam != 0.0:  # zero times NaN would put a broken adapter into the base
            b_t[v] = b.T * (site.scaling * view.lam)
    if site.magnitude is None:
        return Factors(a_t, b_t)
    m = torch.stack([site.magnitude.at(view, site.name).to(b_t.dtype) for view in views])  # [V, d_out]
    is_base = torch.tensor([view.lam == 0.0 for view in views], device=b_t.device)[:, None]
    ratio = torch.where(is_base, 1.0, m / _row_norms(site.weight().to(b_t.dtype), a_t, b_t))[:, None]  # [V, 1, d_out]
    return Factors(a_t, b_t * ratio, ratio - 1)


def stack_turns(site: DenseSite, views: Sequence[View], store: FactorStore) -> Turns:
    """Return what `views` do to the outputs of one module."""
    rows = [v for v, view in enumerate(views) if view.lam != 0.0]
    perm = torch.empty(len(rows), site.d_out, dtype=torch.int32, device=site.live.device)
    scale = torch.empty(len(rows), site.d_out, device=site.live.device)
    for u, v in enumerate(rows):
        perm[u], sign = store.turn(site, views[v])
        scale[u] = sign * views[v].lam
    return Turns(len(views), torch.tensor(rows, dtype=torch.int64, device=site.live.device), perm, scale)


def _row_norms(w: Tensor, a_t: Tensor, b_t: Tensor) -> Tensor:
    """Return the norms of the rows of W + B_v A_v, [V, d_out], without forming that matrix for any view.

    n^2 = ||W||^2 + 2 <W A^T, B> + ||B A||^2 row by row, and ||B A||^2 = B (A A^T) B^T needs only an r x r matrix.
    """
    cross = (w @ a_t).mT  # [r, d_out] or [V, r, d_out]
    gram = a_t.mT @ a_t  # [r, r] or [V, r, r]
    n2 = torch.linalg.vector_norm(w, dim=1).square() + ((2 * cross + gram @ b_t) * b_t).sum(1)  # [V, d_out]
    norms: Tensor = n2.clamp(min=0).sqrt()
    return norms


def _own_a(view: View) -> bool:
    """Whether a view has an A of its own: rotations, rank profiles, cuts and sign flips keep the adapter's."""
    return view.kind == "gaussian"


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
