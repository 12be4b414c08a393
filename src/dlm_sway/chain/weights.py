"""What the files of a merged model say: base + scale x B A, module by module, without loading a model.

For each adapted module the change M - W is projected on what the adapter adds, D: lam = <M - W, D> / <D, D>. Rounding
is predicted the same way, from W + D as a dtype stores it, so a merge that would lose the adapter is known before it
is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.adapters.lora import Lora
from dlm_sway.chain.model_files import HEAD, GgufWeights, SafetensorsWeights, Weights
from dlm_sway.chain.owned import owned_by_model
from dlm_sway.chain.rounding import NARROW, nf4_rounded, room_of, rounded


@dataclass
class Fit:
    """How a merged model relates to base + adapter.

    Attributes:
        lam: scale of the adapter that the merged weights hold; NaN where nothing could be compared.
        residual: ||M - W - lam D||^2 / ||D||^2 beyond that scale.
        predicted: survival in the dtype of the merged weights, from rounding alone; None where that is not narrow.
        nf4_residual: the same residual against W as 4 bits (NF4) store it; None where it was not asked.
        dtype: of the merged weights.
        missing: parameters of the base that the merged model lacks under their names.
        renamed: those of them that are adapted, or for which the merged model has a strange one of the same size.
        changed: parameters that the adapter does not touch and that are not the base's, with their relative distance.
        modules: scale by module.
        n_elements: weights that went in.
    """

    lam: float
    residual: float
    predicted: float | None
    nf4_residual: float | None
    dtype: str
    missing: tuple[str, ...]
    changed: Mapping[str, float]
    modules: Mapping[str, float] = field(default_factory=dict)
    n_elements: int = 1
    renamed: tuple[str, ...] = ()

    @property
    def known_lam(self) -> float | None:
        """`lam`, or None where nothing could be compared."""
        return self.lam if self.n_elements else None

    @property
    def lam_error(self) -> float:
        """Standard error of `lam` if what it leaves is rounding, which does not know the adapter's direction."""
        return float(np.sqrt(self.residual / max(1, self.n_elements)))


def predicted_survival(base: SafetensorsWeights, lora: Lora, *, dtype: str) -> float | None:
    """Return the share of the adapter that a merge into `dtype` (`bf16` or `fp16`) keeps, from files alone.

    None where the base has no module of the adapter's names and shapes.
    """
    sums = np.zeros(2)  # <round(W + D) - W, D>, <D, D>
    n = 0
    for module, delta in _deltas(base, lora):
        stored = rounded(base.read(f"{module}.weight"), dtype)
        change = rounded(stored + delta, dtype) - stored
        sums += [_dot(change, delta), _dot(delta, delta)]
        n += 1
    kept, total = sums.tolist()
    if not n:
        return None
    return float(kept / total) if total else 1.0


def fit_merged(base: SafetensorsWeights, merged: Weights, lora: Lora) -> Fit:
    """Return how `merged` relates to base + adapter; every tensor is read once."""
    there = merged.names()
    sums = np.zeros(4)  # <M - W, D>, <D, D>, |M - W|^2, and <round(W + D) - W, D>
    modules: dict[str, float] = {}
    nf4 = 0.0
    dtype, foreseen, n = "", True, 0
    for module, delta in _deltas(base, lora):
        name = f"{module}.weight"
        if name not in there:
            continue
        weight, found = base.read(name), merged.read(name)
        if weight.shape != found.shape:
            continue
        dtype = merged.dtype(name)
        # What a narrow dtype does to the base itself is no part of what it does to the adapter.
        plain = merged.stored(name, weight)
        stored = weight if plain is None else plain
        # A merge in 16 bits starts from the rounded base; a file is quantised from the sum.
        summed = merged.stored(name, (stored if dtype in NARROW else weight) + delta)
        change, own = found - stored, _dot(delta, delta)
        along = _dot(change, delta)
        lost = own if summed is None else _dot(summed - stored, delta)
        foreseen &= summed is not None
        n += weight.size
        sums += [along, own, _dot(change, change), lost]
        nf4 += _square(found - nf4_rounded(weight) - delta)
        modules[module] = along / own if own else 0.0
    along, own, change_size, lost = sums.tolist()
    lam = along / own if own else 0.0
    missing = tuple(sorted(_expected(base, merged) - there))
    return Fit(
        lam=lam if n else float("nan"),
        residual=max(0.0, change_size - 2 * lam * along + lam**2 * own) / own if own else 0.0,
        predicted=lost / own if own and foreseen and dtype != "F32" else None,
        nf4_residual=nf4 / own if own else None,
        dtype=dtype,
        missing=missing,
        renamed=_renamed(base, merged, missing, set(lora)),
        changed=_changed(base, merged, set(lora)),
        modules=modules,
        n_elements=n,
    )


def _deltas(base: SafetensorsWeights, lora: Lora) -> Iterable[tuple[str, Float32Array]]:
    shapes = base.shapes()
    for module, factors in lora.items():
        delta = factors.delta()
        delta = delta.T if base.files.is_transposed(module, fan_in_fan_out=False) else delta
        if shapes.get(f"{module}.weight") == delta.shape:
            yield module, delta


def _expected(base: SafetensorsWeights, merged: Weights) -> frozenset[str]:
    """Return what a merged model should hold; a GGUF is asked only for what it is known to name."""
    owned = owned_by_model(base.files)
    if isinstance(merged, GgufWeights):
        return merged.expected() & owned
    return owned - ({HEAD} if base.files.tied else set())


def _renamed(base: SafetensorsWeights, merged: Weights, missing: Iterable[str], adapted: set[str]) -> tuple[str, ...]:
    """Return what is missing and adapted, or as large as a tensor of the merged model that the base does not know."""
    ours = base.shapes()
    # Sizes in any order: a GGUF file may hold them the other way round.
    strange = Counter(tuple(sorted(shape)) for name, shape in merged.shapes().items() if name not in ours)
    found: list[str] = []
    for name in missing:
        size = tuple(sorted(ours[name]))
        if name.removesuffix(".weight") in adapted or strange[size] > 0:
            strange[size] -= 1
            found.append(name)
    return tuple(found)


def _changed(base: SafetensorsWeights, merged: Weights, adapted: set[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in sorted(owned_by_model(base.files) & merged.names()):
        shift = merged.shift(name)
        # A converter adds the shift in the dtype of what it reads, whatever it then writes.
        room = room_of("F16" if shift else merged.dtype(name))
        if name.removesuffix(".weight") in adapted or room is None:
            continue
        theirs, ours = base.read(name), merged.read(name)
        if theirs.shape != ours.shape:
            found[name] = float("inf")
            continue
        size = _square(theirs + np.float32(shift))
        apart = (_square(ours - theirs) / size) ** 0.5 if size else float(np.abs(ours).max(initial=0.0))
        if apart > room:
            found[name] = apart
    return found


def _dot(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def _square(a: npt.NDArray[np.float32]) -> float:
    return _dot(a, a)
