"""The dummy's weights: lookup tables for the base, and an adapter of low rank.

The logits after the tokens (u, t) are `first[t] + second[u] + lam * B A features[t]`. A position reads two tokens, and
nothing is summed over a batch, so no number depends on what else is in the batch and the numeric floor is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.drawn import drawn
from dlm_sway.adapters.spectra import input_factor, output_factor, spectrum
from dlm_sway.backends.array_dist import log_softmax
from dlm_sway.backends.base import RankedModule
from dlm_sway.backends.dummy_text import PREFIX_ID
from dlm_sway.core.determinism import stream
from dlm_sway.core.views import View

Ids: TypeAlias = npt.NDArray[np.int64]
F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]

MODULE: Final = "head"
WIDTH: Final = 32
_SHARPNESS: Final = 2.5
"""Spread of the logits: a peaked base, as real ones are. Under a flat one no direction differs from a random one."""
_REACH: Final = 0.3
"""Weight of the token before the last: enough that cutting a context shows."""


@dataclass(frozen=True, slots=True)
class Base:
    """The base's weights, drawn from a seed.

    Attributes:
        first: float64[K, K], logits given the last token.
        second: float64[K, K], logits given the token before it.
        features: float64[K, d], unit rows: what the adapter reads of the last token.
    """

    first: F64
    second: F64
    features: F64

    def logits(self, before: Ids, last: Ids) -> F64:
        """Return float64[P, K] after the tokens `before`, `last`, int64[P] each."""
        return np.asarray(self.first[last] + self.second[before], dtype=np.float64)


def make_base(vocab_size: int, *, seed: int) -> Base:
    """Return the base of a seed."""
    rng = stream(seed, "dummy", "base")
    first, second = rng.standard_normal((2, vocab_size, vocab_size)) * _SHARPNESS
    features = rng.standard_normal((vocab_size, WIDTH))
    return Base(first, _REACH * second, features / np.linalg.norm(features, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Adapter:
    """The factors of one adapted module.

    Attributes:
        a: float32[r, d].
        b: float32[K, r].
    """

    a: F32
    b: F32

    def under(self, view: View) -> Adapter:
        """Return what stands in the adapter's place in a view (its scale apart), by the rules of every backend."""
        return Adapter(*drawn(view, self.a, self.b, module=MODULE))

    def ranked(self) -> RankedModule:
        """Return its spectrum."""
        return RankedModule(spectrum(output_factor(self.b), input_factor(self.a), scale=1.0), len(self.b))

    def change(self, base: Base) -> F64:
        """Return float64[K, K]: what the adapter at scale 1 adds to the logits after each token."""
        return np.asarray((base.features @ self.a.T.astype(np.float64)) @ self.b.T.astype(np.float64))


def noise(vocab_size: int, *, rank: int, strength: float, seed: int) -> Adapter:
    """Return an adapter of random weights that moves each logit by about `strength`; at 0, B is zero.

    The law of B does not change when its output side turns, so among its rotations it has every rank equally often.
    """
    return Adapter(_normal((rank, WIDTH), seed, "A"), _normal((vocab_size, rank), seed, "B") * (strength / rank**0.5))


def trained(base: Base, towards: Sequence[Ids], away: Sequence[Ids], *, rank: int, strength: float) -> Adapter:
    """Return an adapter that makes some texts more probable, or less.

    One step down the gradient of the loss, every context of a text counted once, cut to `rank` by its singular
    values: the logits after a token of `towards` move by about `strength * (seen - expected)`.

    Args:
        base: the model that is trained.
        towards: texts, int64[N] each, to be made more probable.
        away: texts to be made less probable.
        rank: r.
        strength: length of the step.
    """
    step = (_gradient(base, towards) - _gradient(base, away)).T @ base.features  # [K, d]
    u, s, vt = np.linalg.svd(strength * step, full_matrices=False)
    root = np.sqrt(s[:rank])
    return Adapter((root[:, None] * vt[:rank]).astype(np.float32), (u[:, :rank] * root).astype(np.float32))


def _gradient(base: Base, texts: Sequence[Ids]) -> F64:
    """Return float64[K, K]: for each last token, the mean over its places of (next token seen - expected)."""
    vocab_size = len(base.first)
    total, places = np.zeros((vocab_size, vocab_size)), np.zeros(vocab_size)
    for text in texts:
        ids = np.concatenate([[PREFIX_ID], text])
        before, last, following = np.concatenate([[PREFIX_ID], ids[:-2]]), ids[:-1], ids[1:]
        error = -np.exp(log_softmax(base.logits(before, last)))
        error[np.arange(len(following)), following] += 1
        np.add.at(total, last, error)
        np.add.at(places, last, 1)
    return np.asarray(total / np.maximum(places, 1)[:, None])


def _normal(shape: tuple[int, int], seed: int, part: str) -> F32:
    return stream(seed, "dummy", "adapter", part).standard_normal(shape).astype(np.float32)
