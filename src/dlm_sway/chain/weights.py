"""What the files of a merged model say: base + scale x B A, module by module, without loading a model.

For each adapted module the change M - W is projected on what the adapter adds, D: lam = <M - W, D> / <D, D>. Rounding
is predicted the same way, from W + D as a dtype stores it, so a merge that would lose the adapter is known before it
is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.base_files import BaseFiles, open_base
from dlm_sway.adapters.dtypes import Float32Array
from dlm_sway.adapters.gguf_lora import open_gguf
from dlm_sway.adapters.gguf_names import names_of
from dlm_sway.adapters.lora import Lora
from dlm_sway.chain.margins import bits_of

NARROW: Final = {"BF16": "bf16", "F16": "fp16"}
_NF4: Final = np.array(
    (
        *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105004, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
    ),
    dtype=np.float32,
)
_BLOCK: Final = 64
HEAD: Final = "lm_head.weight"


_OTHER_NAMES: Final = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


class Weights(Protocol):
    """Parameters of a whole model by their names in transformers."""

    def names(self) -> frozenset[str]:
        """Return the names."""
        ...

    def read(self, name: str) -> Float32Array:
        """Return one parameter."""
        ...

    def dtype(self, name: str) -> str:
        """Return how it is stored, such as `BF16`."""
        ...


class SafetensorsWeights:
    """A model directory."""

    def __init__(self, directory: Path) -> None:
        """Read headers alone."""
        self.files: BaseFiles = open_base(directory)

    def names(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(self.files.parameters)

    def read(self, name: str) -> Float32Array:
        """Return one parameter."""
        file, info = self.files.parameters[name]
        return file.read(info.name)

    def dtype(self, name: str) -> str:
        """Return how it is stored."""
        return self.files.parameters[name][1].dtype


class GgufWeights:
    """The matrices of a GGUF file that a LoRA can adapt, and its embedding, in transformers' names and order."""

    def __init__(self, path: Path, base: Path) -> None:
        """Read the directory of the file; `base` tells the names."""
        self._names = names_of(base)
        self.reader: Any = open_gguf(path)
        known = {weight: f"{module}.weight" for module, weight in self._names.weights.items()}
        known |= _OTHER_NAMES
        self._tensors = {known[t.name]: t for t in self.reader.tensors if t.name in known}

    def bits(self) -> float | None:
        """Return the bits of a weight in the coarsest of the matrices; None where a type is not known."""
        found = [bits_of(str(t.tensor_type.name)) for t in self._tensors.values() if len(t.shape) > 1]
        known = [bits for bits in found if bits is not None]
        return min(known) if known and len(known) == len(found) else None

    def expected(self) -> frozenset[str]:
        """Return the names that a model of this architecture has; an untied head is looked for by itself."""
        return frozenset(f"{module}.weight" for module in self._names.weights) - {HEAD}

    def names(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(self._tensors)

    def read(self, name: str) -> Float32Array:
        """Return one parameter, dequantised."""
        from gguf.quants import dequantize

        found = self._tensors[name]
        values = np.array(dequantize(found.data, found.tensor_type), dtype=np.float32)
        return self._names.from_gguf(name.removesuffix(".weight"), values)

    def dtype(self, name: str) -> str:
        """Return how it is stored."""
        return str(self._tensors[name].tensor_type.name)


@dataclass
class Fit:
    """How a merged model relates to base + adapter.

    Attributes:
        lam: scale of the adapter that the merged weights hold.
        residual: ||M - W - lam D||^2 / ||D||^2 beyond that scale.
        predicted: survival in the dtype of the merged weights, from rounding alone; None where that is not narrow.
        nf4_residual: the same residual against W as 4 bits (NF4) store it; None where it was not asked.
        dtype: of the merged weights.
        missing: parameters of the base that the merged model lacks.
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

    @property
    def lam_error(self) -> float:
        """Standard error of `lam` if what it leaves is rounding, which does not know the adapter's direction."""
        return float(np.sqrt(self.residual / max(1, self.n_elements)))


def predicted_survival(base: SafetensorsWeights, lora: Lora, *, dtype: str) -> float:
    """Return the share of the adapter that a merge into `dtype` (`bf16` or `fp16`) keeps, from files alone."""
    kept = total = 0.0
    for module, delta in _deltas(base, lora):
        weight = base.read(f"{module}.weight")
        stored = rounded(weight, dtype)
        change = rounded(stored + delta, dtype) - stored
        kept += _dot(change, delta)
        total += _dot(delta, delta)
    return kept / total if total else 1.0


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
        plain = stored_as(weight, dtype)
        stored = weight if plain is None else plain
        # A merge in 16 bits starts from the rounded base; a file is quantised from the sum.
        summed = stored_as((stored if dtype in NARROW else weight) + delta, dtype)
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
    return Fit(
        lam=lam,
        residual=max(0.0, change_size - 2 * lam * along + lam**2 * own) / own if own else 0.0,
        predicted=lost / own if own and foreseen and dtype != "F32" else None,
        nf4_residual=nf4 / own if own else None,
        dtype=dtype,
        missing=tuple(sorted(_expected(base, merged) - there)),
        changed=_changed(base, merged, set(lora)),
        modules=modules,
        n_elements=n,
    )


def stored_as(x: Float32Array, dtype: str) -> Float32Array | None:
    """Return values as a format stores them, or None where sway cannot write it."""
    if dtype in ("F32", "F64"):
        return x
    if dtype in NARROW:
        return rounded(x, NARROW[dtype])
    try:
        import gguf
        from gguf.quants import dequantize, quantize

        kind = gguf.GGMLQuantizationType[dtype]
        return np.asarray(dequantize(quantize(x, kind), kind), dtype=np.float32)
    except (ImportError, KeyError, NotImplementedError, ValueError):
        return None


def rounded(x: Float32Array, dtype: str) -> Float32Array:
    """Return values as a 16-bit dtype stores them; ties to even."""
    if dtype == "fp16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    up = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    return ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)


def nf4_rounded(x: Float32Array) -> Float32Array:
    """Return values as NF4 stores them in blocks of 64 (Dettmers et al. 2023), constants of blocks not quantised."""
    flat = x.reshape(-1)
    padded = np.zeros(-(-flat.size // _BLOCK) * _BLOCK, dtype=np.float32)
    padded[: flat.size] = flat
    blocks = padded.reshape(-1, _BLOCK)
    size = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.float32(1e-30))
    middle = (_NF4[1:] + _NF4[:-1]) / 2
    out = _NF4[np.searchsorted(middle, blocks / size)] * size
    return np.asarray(out.reshape(-1)[: flat.size].reshape(x.shape), dtype=np.float32)


def _deltas(base: SafetensorsWeights, lora: Lora) -> Iterable[tuple[str, Float32Array]]:
    for module, factors in lora.items():
        if f"{module}.weight" in base.names():
            delta = factors.delta()
            yield module, delta.T if base.files.is_transposed(module, fan_in_fan_out=False) else delta


def _expected(base: SafetensorsWeights, merged: Weights) -> frozenset[str]:
    """Return what a merged model should hold; a GGUF is asked only for what it is known to name."""
    if isinstance(merged, GgufWeights):
        return merged.expected() & base.names()
    return base.names() - ({HEAD} if base.files.tied else set())


def _changed(base: SafetensorsWeights, merged: Weights, adapted: set[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in sorted(base.names() & merged.names()):
        if name.removesuffix(".weight") in adapted:
            continue
        theirs, ours = base.read(name), merged.read(name)
        if theirs.shape != ours.shape:
            found[name] = float("inf")
            continue
        size = _square(theirs)
        apart = (_square(ours - theirs) / size) ** 0.5 if size else float(np.abs(ours).max(initial=0.0))
        if apart > _ROOM.get(merged.dtype(name), 0.2):
            found[name] = apart
    return found


_ROOM: Final = {"F32": 1e-6, "F64": 1e-6, "BF16": 0.01, "F16": 0.002, "Q8_0": 0.02}
"""Relative distance that rounding alone makes; 4-bit formats come to about 0.1."""


def _dot(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def _square(a: npt.NDArray[np.float32]) -> float:
    return _dot(a, a)
