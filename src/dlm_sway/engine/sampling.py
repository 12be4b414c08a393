"""Picks tokens from logits: the most probable one, or a draw that does not depend on what else is in the batch.

A draw is an inverse CDF taken bit by bit: the vocabulary is halved until one token is left, with a uniform of its own
for every halving. One uniform over the whole CDF would be fragile: logits of one text computed in two batches differ
by about 1e-5, all boundaries of the CDF move with them, and a token rarer than the shift changes places: 1-2 % of the
draws from 49 thousand tokens differ. A halving depends on one ratio of masses, so the draws differ about as seldom as
the two distributions do, a few times in 10^6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.views import BASE, View

_NUCLEUS = 512  # a top-p set is nearly always smaller, and then a full sort is spared


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are picked.

    Attributes:
        temperature: 0 picks the most probable token; else logits are divided by it.
        top_p: keep the smallest set of tokens that holds this much probability, in (0, 1].
        seed: of the draws.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            BadInputError: `temperature` is negative or not finite, or `top_p` is outside (0, 1].
        """
        if not 0.0 <= self.temperature < float("inf"):
            raise BadInputError(f"temperature must be finite and not negative, got {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise BadInputError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0


class Uniforms:
    """Uniform draws for many texts, each from a stream of its own."""

    def __init__(self, streams: Iterable[np.random.Generator]) -> None:
        """Draw from `streams`, one a text."""
        self._streams = list(streams)

    def next(self, texts: Sequence[int], n_levels: int) -> npt.NDArray[np.float64]:
        """Return the next `n_levels` draws of each text, float64[n, n_levels]."""
        return np.stack([self._streams[i].random(n_levels) for i in texts])


def text_stream(seed: int, view: View, ids: npt.NDArray[np.int64], *, repeat: int) -> np.random.Generator:
    """Return the stream of one text: the same whatever else is generated beside it.

    Args:
        seed: the run's seed.
        view: who writes; every view at scale 0 is the base.
        ids: int64[n], the prompt.
        repeat: how many equal prompts came before it.
    """
    v = BASE if view.lam == 0.0 else view
    who = (v.kind, repr(float(v.lam)), v.seed, v.draw, repr(float(v.rank_scale)), repr(float(v.init_scale)))
    return stream("generate", seed, *who, ids.astype("<i8").tobytes().hex(), repeat)


def n_levels(vocab_size: int) -> int:
    """Return how many uniforms a draw from `vocab_size` tokens takes."""
    return max(1, (vocab_size - 1).bit_length())


def draw(logits: Tensor, uniforms: Tensor, how: Sampling) -> Tensor:
    """Draw a token from each row, int64[n].

    Args:
        logits: [n, K], finite or -inf.
        uniforms: [n, levels] in [0, 1), `levels` from `n_levels(K)`.
        how: temperature (positive) and top-p.
    """
    # fp32 sums of 50 thousand probabilities lose what rare tokens weigh; MPS has nothing finer.
    fine = torch.float32 if logits.device.type == "mps" else torch.float64
    prob = torch.softmax(logits.to(fine) / how.temperature, dim=-1)
    if how.top_p < 1.0:
        prob = _nucleus(prob, how.top_p)
    return _halve(prob, uniforms.to(prob))


def _nucleus(prob: Tensor, top_p: float) -> Tensor:
    """Return prob [n, K] with zeros outside the smallest set of most probable tokens that holds `top_p`."""
    size = min(_NUCLEUS, prob.shape[-1])
    top, where = prob.topk(size, dim=-1)  # [n, size], descending
    if size < prob.shape[-1] and bool((top.sum(-1) < top_p).any()):
        top, where = prob.sort(dim=-1, descending=True, stable=True)
    before = top.cumsum(-1) - top  # mass of the more probable ones
    return torch.zeros_like(prob).scatter(-1, where, top.masked_fill(before >= top_p, 0.0))


def _halve(mass: Tensor, uniforms: Tensor) -> Tensor:
    """Return the token that each row's uniforms lead to, int64[n]; mass [n, K] need not sum to 1."""
    n, vocab_size = mass.shape
    below = torch.cat([mass.new_zeros(n, 1), mass.cumsum(-1)], dim=-1)  # [n, K + 1], mass of the ids below
    low = torch.zeros(n, 1, dtype=torch.int64, device=mass.device)
    for level in range(uniforms.shape[1]):
        half = 1 << (uniforms.shape[1] - 1 - level)
        edges = torch.cat([low, low + half, low + 2 * half], dim=1).clamp(max=vocab_size)  # [n, 3]
        at = below.gather(1, edges)
        left, right = at[:, 1:2] - at[:, :1], at[:, 2:] - at[:, 1:2]
        go_right = (uniforms[:, level : level + 1] * (left + right) >= left) & (right > 0)
        low = torch.where(go_right, low + half, low)
    return low[:, 0]
