"""Answers `Slopes`: gradients of the base along the adapter's factors, one sequence at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import GradientBackend
from dlm_sway.core.errors import CannotRunError
from dlm_sway.engine.ask import Ask, Sloped, Slopes, TextItem
from dlm_sway.engine.memory import fits
from dlm_sway.engine.rows import Row, rows_of
from dlm_sway.engine.run import Engine

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]


def slopes(engine: Engine, ask: Slopes, *, askers: Sequence[str] = ()) -> Sloped:
    """Return the predicted gains, or the refusal of a backend that gives no gradients.

    Memory is that of one sequence and of a sum of gradients for each set; what a set's gradients are is reduced to
    singular values before anything leaves.

    Args:
        engine: holds the model.
        ask: what to differentiate along.
        askers: who asks, for the trace.

    Raises:
        BadInputError: an item holds nothing to differentiate along.
        CannotRunError: a gradient is not finite, or memory ran out on a single sequence.
    """
    backend = engine.backend
    if not isinstance(backend, GradientBackend):
        return _refused(ask, f"{type(backend).__name__} gives no gradients; load the adapter with a backend of kind hf")
    if (refusal := backend.gradient_refusal()) is not None:
        return _refused(ask, refusal)
    factors = {name: b.astype(np.float64) for name, b in backend.trained_factors().items()}
    with backend.exclusive():
        work = _Work(engine, backend, ask, factors, tuple(askers))
        target, control = work.of(ask.items), work.of(ask.controls)
    upper = {name: _upper(b) for name, b in factors.items()}
    means = {"target": target.mean, "control": control.mean}
    means["difference"] = {name: target.mean[name] - control.mean[name] for name in factors}
    return Sloped(
        ask=ask,
        refusal=None,
        modules=tuple(factors),
        left_out=backend.without_gradient(),
        d_out=np.array([len(b) for b in factors.values()], dtype=np.int64),
        items=target.gains,
        controls=control.gains,
        tokens=target.tokens,
        control_tokens=control.tokens,
        spectra={
            what: tuple(_spectrum(mean[name] @ upper[name].T) for name in factors) for what, mean in means.items()
        },
    )


class _Set:
    """Gradients of one set of texts, added up.

    Attributes:
        mean: for each module the gradient per token, float64[d_out, r]; zero of an empty set.
        gains: float64[n, M], <G, B>.
        tokens: int64[n].
    """

    def __init__(self, n: int, factors: Mapping[str, F64]) -> None:
        self.mean: dict[str, F64] = {name: np.zeros_like(b) for name, b in factors.items()}
        self.gains = np.zeros((n, len(factors)))
        self.tokens = np.zeros(n, dtype=np.int64)

    def add(self, i: int, row: Row, gradients: Mapping[str, F32], factors: Mapping[str, F64]) -> None:
        """Count one row of item i."""
        for m, (name, b) in enumerate(factors.items()):
            g = gradients[name].astype(np.float64)
            self.mean[name] += g
            self.gains[i, m] += float(np.vdot(g, b))
        self.tokens[i] += row.n_scored


@dataclass(frozen=True, slots=True)
class _Work:
    """Differentiates sets of texts, the model in hand."""

    engine: Engine
    backend: GradientBackend
    ask: Slopes
    factors: Mapping[str, F64]
    askers: tuple[str, ...]

    def of(self, items: Sequence[TextItem]) -> _Set:
        """Return the gradients of a set."""
        found = _Set(len(items), self.factors)
        like = Ask(tuple(items), (), frozenset(), format=self.ask.format, max_tokens=self.ask.max_tokens)
        for i, item in enumerate(items):
            for row in rows_of(item, like, self.backend.codec):
                found.add(i, row, self._gradients(row, item.label), self.factors)
        for name in self.factors:
            found.mean[name] /= max(1, int(found.tokens.sum()))
        return found

    def _gradients(self, row: Row, where: str) -> dict[str, F32]:
        began = time.perf_counter()
        gradients: dict[str, F32] = {}
        if not fits(partial(_into, gradients, self.backend, row)):
            raise CannotRunError(
                f"out of memory on the gradient of {len(row.ids)} tokens",
                where=where,
                remedy="use a smaller max_tokens, or another device",
            )
        if not all(np.isfinite(g).all() for g in gradients.values()):
            raise CannotRunError("a gradient of the base is not finite", where=where, remedy="use --dtype fp32")
        self.engine.note(
            seconds=time.perf_counter() - began,
            tokens=len(row.ids),
            views=1,
            rows=1,
            scored=row.n_scored,
            probes=list(self.askers),
        )
        return gradients


def _upper(b: F64) -> F64:
    """Return R of B = Q R, [min(d_out, r), r]."""
    return np.asarray(np.linalg.qr(b, mode="r"), dtype=np.float64)


def _spectrum(h: F64) -> F64:
    return np.asarray(np.linalg.svd(h, compute_uv=False), dtype=np.float64)


def _into(gradients: dict[str, F32], backend: GradientBackend, row: Row) -> None:
    gradients |= backend.factor_gradients(row.ids, row.first, row.targets)


def _refused(ask: Slopes, refusal: str) -> Sloped:
    empty = np.zeros((0, 0))
    none = np.zeros(0, dtype=np.int64)
    return Sloped(ask, refusal, (), (), none, empty, empty, none, none, {})
