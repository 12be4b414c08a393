"""Where an MLX model differs from its base: the adapter's factors in numpy, their slots, and terms for many views."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_unflatten

from dlm_sway.adapters.drawn import drawn, magnitude_delta
from dlm_sway.adapters.lora import Lora, LoraFactors
from dlm_sway.adapters.nulls import F32
from dlm_sway.adapters.spectra import input_factor, output_factor, spectrum
from dlm_sway.backends.base import RankedModule
from dlm_sway.backends.mlx_layers import LowRankEmbedding, LowRankLinear, Slot, Terms
from dlm_sway.core.errors import AdapterError, CannotRunError
from dlm_sway.core.views import View

_STORE_BYTES: Final = 192 * 2**20  # of null factors that are kept, as in the engine
_ROWS, _LENGTH = 3, 5  # of the batch that is tried; both prime, so that shapes cannot be mistaken for each other
_HEAD: Final = "lm_head"


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One adapted module.

    Attributes:
        name: module name in the base, the key of its null draws.
        factors: A, B, their scale, and DoRA's magnitude.
        slot: where its terms stand.
        weight: the module's own weight [d_out, d_in]; None without DoRA.
        lengths: the row norms of that, the magnitudes of an untrained DoRA, float32[d_out]; None without DoRA.
    """

    name: str
    factors: LoraFactors
    slot: Slot
    weight: Any = None
    lengths: F32 | None = None

    def ranked(self) -> RankedModule:
        """Return the spectrum of delta W.

        Raises:
            CannotRunError: a factor is not finite.
        """
        f = self.factors
        try:
            found = spectrum(output_factor(f.b), input_factor(f.a), scale=f.scale)
        except np.linalg.LinAlgError:
            raise CannotRunError("a factor is not finite", where=self.name, remedy="run `sway inspect`") from None
        return RankedModule(found, f.b.shape[0])

    def magnitude(self, view: View) -> F32:
        """Return DoRA's magnitudes in a view, float32[d_out]."""
        assert self.lengths is not None  # noqa: S101 (only of DoRA)
        assert self.factors.magnitude is not None  # noqa: S101 (likewise)
        delta = magnitude_delta(view, self.factors.magnitude - self.lengths, module=self.name)
        return np.asarray(self.lengths + np.float32(view.lam) * delta, dtype=np.float32)


class Sites:
    """The adapted modules of a model, and the terms of views, drawn once and kept within a bound."""

    def __init__(self, sites: Sequence[Site] = (), *, device: Any = mx.cpu, max_bytes: int = _STORE_BYTES) -> None:
        """Hold `sites` on `device`; drawn factors take at most about `max_bytes`, and those of a pass as much again."""
        self.all, self._device = tuple(sites), device
        self._room = self._max = max_bytes
        self._kept: dict[tuple[str, View], tuple[F32, F32]] = {}
        self._pass: tuple[tuple[View, ...], tuple[Terms, ...]] = ((), ())

    @contextmanager
    def showing(self, views: Sequence[View]) -> Iterator[None]:
        """Let the model read view-major rows inside the block; what stood in the slots is back on any exit.

        Raises:
            CannotRunError: a cut was asked for, and the adapter has DoRA.
        """
        if any(view.kind == "top_rank" and view.lam != 0.0 for view in views) and (why := self.cut_refusal()):
            what = f"the adapter cannot be cut to its largest directions: {why}"
            raise CannotRunError(what, remedy="only LoRA can be cut")
        terms = self._terms(tuple(views)) if any(view.lam != 0.0 for view in views) else None
        with self.holding([None] * len(self.all) if terms is None else terms):
            yield

    @contextmanager
    def holding(self, terms: Sequence[Terms | None]) -> Iterator[None]:
        """Let each slot hold what is given for it inside the block."""
        before = [site.slot.terms for site in self.all]
        try:
            for site, new in zip(self.all, terms, strict=True):
                site.slot.terms = new
            yield
        finally:
            for site, old in zip(self.all, before, strict=True):
                site.slot.terms = old

    def views_per_pass(self) -> int:
        """Return how many views besides the base can have their terms in memory at once, at least one."""
        one = sum(s.factors.a.nbytes + s.factors.b.nbytes for s in self.all)
        return max(1, self._max // max(1, one) - 1)

    def plain(self) -> tuple[Site, ...]:
        """Return the sites whose change is linear in B: those without DoRA."""
        return tuple(s for s in self.all if s.factors.magnitude is None)

    def cut_refusal(self) -> str | None:
        """Return why the adapter cannot be cut to its largest directions, naming modules, or None."""
        if not self.all:
            return "the adapter has no factors"
        dora = [s.name for s in self.all if s.factors.magnitude is not None]
        named = ", ".join(dora[:3]) + ("..." if len(dora) > 3 else "")  # noqa: PLR2004 (as many as are named)
        return f"DoRA trained a magnitude beside the factors of {named}" if dora else None

    def _terms(self, views: tuple[View, ...]) -> tuple[Terms, ...]:
        if self._pass[0] != views:
            self._pass = ((), ())  # so that two passes are never held together
            with mx.stream(self._device):
                self._pass = views, tuple(self._of(site, views) for site in self.all)
        return self._pass[1]

    def _of(self, site: Site, views: tuple[View, ...]) -> Terms:
        pairs = [self.drawn(site, view) for view in views]
        shared = all(a is site.factors.a for a, _ in pairs)
        a_t = site.factors.a.T if shared else np.stack([a.T for a, _ in pairs])
        b_t = np.zeros((len(views), *reversed(site.factors.b.shape)), dtype=np.float32)
        for v, ((_, b), view) in enumerate(zip(pairs, views, strict=True)):
            if view.lam != 0.0:  # zero times NaN would put a broken adapter into the base
                b_t[v] = b.T * np.float32(site.factors.scale * view.lam)
        first, second = mx.array(np.ascontiguousarray(a_t)), mx.array(b_t)
        return Terms(first, second, None if site.weight is None else _ratio(site, views, first, second))

    def drawn(self, site: Site, view: View) -> tuple[F32, F32]:
        """Return A and B of a view, the scale not included; A itself where the view keeps it."""
        f = site.factors
        if view.kind == "adapter":
            return f.a, f.b
        key = site.name, replace(view, lam=1.0)
        if (found := self._kept.get(key)) is None:
            found = drawn(view, f.a, f.b, module=site.name)
            size = found[1].nbytes + (0 if found[0] is f.a else found[0].nbytes)
            if size <= self._room:
                self._kept[key] = found
                self._room -= size
        return found


def _ratio(site: Site, views: Sequence[View], a_t: Any, b_t: Any) -> Any:
    """Return m_v / n_v, [V, 1, d_out], one for the base.

    n^2 = ||W||^2 + 2 <W A^T, B> + ||B A||^2 row by row, and ||B A||^2 = B (A A^T) B^T needs only an r x r matrix.
    """
    w = site.weight.astype(mx.float32)
    cross = (w @ a_t).swapaxes(-1, -2)  # [r, d_out] or [V, r, d_out]
    gram = a_t.swapaxes(-1, -2) @ a_t  # [r, r] or [V, r, r]
    n2 = mx.square(w).sum(axis=1) + ((2 * cross + gram @ b_t) * b_t).sum(axis=1)  # [V, d_out]
    m = mx.array(np.stack([site.magnitude(view) for view in views]))
    is_base = mx.array([view.lam == 0.0 for view in views])[:, None]
    return mx.where(is_base, 1.0, m / mx.sqrt(mx.maximum(n2, 0)))[:, None]


def put_in(model: Any, lora: Lora, *, device: Any, where: str) -> Sites:
    """Wrap the modules that an adapter changes, and return them as sites; until a view is shown nothing changes.

    Raises:
        AdapterError: a module is not in the model, is of another shape, or is one that takes no such factors.
    """
    modules = dict(model.named_modules())
    slots: dict[str, dict[str, Slot]] = {}
    sites: list[Site] = []
    for name, factors in lora.items():
        path, part = _place(name, modules, where=where)
        module = modules[path]
        _require_fit(name, module, factors, part, where=where)
        slot = slots.setdefault(path, {}).setdefault(part, Slot())
        weight = None if factors.magnitude is None else module.weight
        lengths = None if weight is None else np.array(mx.sqrt(mx.square(weight.astype(mx.float32)).sum(axis=1)))
        sites.append(Site(name, factors, slot, weight, lengths))
    model.update_modules(tree_unflatten([(path, _wrapped(modules[path], parts)) for path, parts in slots.items()]))
    found = Sites(sites, device=device)
    _require_order(model, found, where=where)
    return found


def _wrapped(module: Any, parts: Mapping[str, Slot]) -> Any:
    if "linear" in parts:
        return LowRankLinear(module, parts["linear"])
    return LowRankEmbedding(module, parts.get("rows", Slot()), parts.get("head", Slot()))


def _place(name: str, modules: Mapping[str, Any], *, where: str) -> tuple[str, str]:
    """Return the path of a module of the base in the MLX model, and which use of it is meant."""
    inner = re.sub(r"^(transformer|model\.language_model)\.", "model.", name)
    for path in (name, inner, f"language_model.{inner}"):
        if path in modules:
            is_table = isinstance(modules[path], nn.Embedding | nn.QuantizedEmbedding)
            return path, "rows" if is_table else "linear"
    if name.rpartition(".")[2] == _HEAD:  # a head that is the embedding is no module here
        tables = [path for path, m in modules.items() if isinstance(m, nn.Embedding | nn.QuantizedEmbedding)]
        tables = [path for path in tables if re.search(r"(embed_tokens|wte|embed_in|tok_embeddings)$", path)]
        if len(tables) == 1:
            return tables[0], "head"
    raise AdapterError(
        f"{name} is no module of this base as mlx_lm builds it", where=where, remedy="use a backend of kind hf for it"
    )


def _require_fit(name: str, module: Any, factors: LoraFactors, part: str, *, where: str) -> None:
    kinds = nn.Linear | nn.QuantizedLinear if part == "linear" else nn.Embedding | nn.QuantizedEmbedding
    reason = ""
    if not isinstance(module, kinds) or (factors.kind == "embedding") != (part == "rows"):
        reason = f"is of type {type(module).__name__}, which does not take factors of kind {factors.kind}"
    elif factors.magnitude is not None and (part != "linear" or isinstance(module, nn.QuantizedLinear)):
        reason = "has a DoRA magnitude, which needs the rows of an unquantised linear module"
    else:
        rows, columns = _shape(module)
        shape = (rows, columns) if part != "rows" else (columns, rows)
        if (factors.b.shape[0], factors.a.shape[1]) != shape:
            reason = f"maps {shape[1]} to {shape[0]}, and its factors {factors.a.shape[1]} to {factors.b.shape[0]}"
    if reason:
        raise AdapterError(
            f"{name} {reason}", where=where, remedy="name the base that it was trained on, or use kind hf"
        )


def _shape(module: Any) -> tuple[int, int]:
    rows, columns = module.weight.shape
    return int(rows), int(columns * 32 // module.bits if "scales" in module else columns)


def _require_order(model: Any, sites: Sites, *, where: str) -> None:
    """Return if each adapted module reads all tokens of a batch in the order of its rows; shapes alone, no numbers.

    Modules that read a routed part of the tokens, or time before rows, would mix up the views of a stack.
    """
    model(mx.zeros((_ROWS, _LENGTH), dtype=mx.int32))
    for site in sites.all:
        shape = site.slot.shape
        if shape[:1] != (_ROWS * _LENGTH,) and not (shape[:1] == (_ROWS,) and _LENGTH in shape[1:3]):
            raise AdapterError(
                f"{site.name} does not read the tokens row by row in mlx_lm", where=where, remedy="use kind hf for it"
            )
