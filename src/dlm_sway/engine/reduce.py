"""Logits to per-position scalars, exact over the full vocabulary, in fp32.

Everything is computed from the logit difference to the base, d = z_view - z_base, centred under the base's
distribution p. Then log-prob differences and divergences are moments of small numbers instead of differences of
large ones: a KL of 1e-9 nat keeps its digits, where `sum p (log p - log q)` would drown in rounding.

    L = log E_p[exp d],  log q - log p = d - L,  KL(p || q) = L - E_p[d]

The other divergences sum a kernel f(log q - log p) >= 0 under p, with its Taylor series where the difference is
small, so there too no two large terms cancel. A value depends on its own position alone: NaN in a logit comes out as
NaN there, and what is special about one position (a huge difference, a mask) changes no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dlm_sway.engine.ask import Reducer

_IN_CACHE = 4 * 2**20  # bytes of differences that a dozen passes over them find in a core's cache
_SAFE_EXP = 60.0  # exp beyond this times a tiny p could overflow fp32
_SERIES = 0.05  # below this a series of four terms is exact in fp32


@dataclass
class _Block:
    """What all reducers share.

    Attributes:
        logp: [p, K] the base's log-probs.
        prob: [p, K] the base's probabilities.
        d: [v, p, K] logit differences to the base, up to a constant at each position.
        log_mean: [v, p] log E_p[exp d].
        target: [p] token ids, -1 where there is none.
    """

    logp: Tensor
    prob: Tensor
    d: Tensor
    log_mean: Tensor
    target: Tensor

    def expect(self, x: Tensor) -> Tensor:
        """Return the mean of x [v, p, K] under the base, [v, p]."""
        return _total(self.prob * x)

    @cached_property
    def kl(self) -> Tensor:
        """KL(p || q), [v, p]; every reducer is NaN where it is."""
        return self.log_mean - self.expect(self.d)

    @cached_property
    def delta(self) -> Tensor:
        """The log-ratio log q - log p, [v, p, K]."""
        return self.d - self.log_mean[..., None]

    @cached_property
    def q(self) -> Tensor:
        """The views' probabilities, [v, p, K]."""
        moderate = self.prob * self.delta.exp()
        if float(self.delta.max()) <= _SAFE_EXP:
            return moderate
        return torch.where(self.delta > _SAFE_EXP, (self.logp + self.delta).exp(), moderate)

    def kernel(self, exact: Tensor, *coefficients: float) -> Tensor:
        """Return the sum of `exact` [v, p, K], or of p delta^2 (c0 + c1 delta + ...) where delta is small, [v, p]."""
        polynomial = torch.zeros_like(self.delta)
        for c in reversed(coefficients):
            polynomial = polynomial * self.delta + c
        series = self.prob * self.delta.square() * polynomial
        return _total(torch.where(self.delta.abs() < _SERIES, series, exact))


def reduce_block(base: Tensor, views: Tensor, target: Tensor, reducers: Iterable[Reducer]) -> dict[str, Tensor]:
    """Compare views with the base at some positions.

    Args:
        base: [p, K] logits of the base; -inf where the model masks a token, which then counts for no view.
        views: [v, p, K] logits of the views; overwritten.
        target: int64[p], the token at each position, -1 where there is none.
        reducers: the scalars wanted.

    Returns:
        float32[v, p] for each reducer, and `base_logprob` float32[p]. NaN where a logit is NaN, and for what needs a
        target where there is none.
    """
    names, step = tuple(reducers), _positions_in_cache(views)
    starts = range(0, max(1, base.shape[0]), step)
    parts = [_reduced(base[a : a + step], views[:, a : a + step], target[a : a + step], names) for a in starts]
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}


def _positions_in_cache(views: Tensor) -> int:
    """Return how many positions to reduce at a time; their values do not depend on it.

    Whoever asks makes blocks as large as the projection likes them. Read whole, each of a dozen passes over such a
    block goes through memory, and so does every temporary: 2.5 to 5 times the time on a CPU (measured). A GPU has the
    bandwidth, and pays by the launch.
    """
    v, p, k = views.shape
    return max(1, p if views.device.type != "cpu" else _IN_CACHE // (4 * max(1, v) * k))


def _reduced(base: Tensor, views: Tensor, target: Tensor, reducers: Sequence[Reducer]) -> dict[str, Tensor]:
    """Return what `reduce_block` does, of positions that are read together."""
    base = base.float()
    logp = torch.log_softmax(base, dim=-1)
    prob = torch.softmax(base, dim=-1)  # sums to 1 more closely than exp(logp) does
    out = {"base_logprob": _pick(logp, target)}
    if views.shape[0] == 0:
        return out | {name: logp.new_empty(0, len(logp)) for name in reducers}
    block = _Block(logp, prob, *_differences(base, logp, prob, views.float()), target)
    bad = block.kl.isnan()
    return out | {name: _REDUCERS[name](block).masked_fill(bad, torch.nan) for name in reducers}


def _differences(base: Tensor, logp: Tensor, prob: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
    """Return d [v, p, K], in place of the views' logits, and log E_p[exp d] [v, p]."""
    d = views.sub_(base)
    if bool((masked := torch.isneginf(base)).any()):
        d.masked_fill_(masked, 0.0)
    mean = _total(prob * d)
    odd = ~mean.isfinite()
    d.sub_(mean.masked_fill(odd, 0.0)[..., None])
    odd |= ~(d.amax(-1) <= _SAFE_EXP)
    log_mean = torch.log1p(_total(torch.expm1(d).mul_(prob)))
    if bool(odd.any()):
        at = odd.nonzero()[:, 1]
        d[odd] = _log_ratio(d[odd], logp[at], prob[at])
        log_mean[odd] = 0.0
    return d, log_mean


def _log_ratio(d: Tensor, logp: Tensor, prob: Tensor) -> Tensor:
    """Return log q - log p [n, K] of positions where d [n, K] is huge, -inf or NaN, through float64."""
    log = logp.cpu().double()  # not every device computes in float64
    ratio = torch.log_softmax(log + d.cpu().double(), dim=-1) - log
    empty = ~ratio.isfinite() & (prob.cpu() == 0)  # a token without mass on either side
    return ratio.masked_fill(empty, 0.0).to(d)


def _pick(x: Tensor, target: Tensor) -> Tensor:
    """Return x[..., target] as [..., p]; NaN where there is no target."""
    index = target.clamp(min=0)[:, None].expand(*x.shape[:-1], 1)
    picked = x.gather(-1, index)[..., 0]
    return picked.masked_fill(target < 0, torch.nan)


def _total(x: Tensor) -> Tensor:
    """Return the sum of x [v, p, K] over the vocabulary, [v, p]: each by itself, in an order that others do not change.

    A contraction over the vocabulary chooses its kernel by v and p, and threads share a sum that is the only one.
    """
    return torch.cat([x, x]).sum(-1)[:1] if x.numel() == x.shape[-1] else x.sum(-1)


def _times(q: Tensor, x: Tensor) -> Tensor:
    """Return q x, 0 where q is, also if x is infinite there."""
    return torch.where(q > 0, q * x, 0.0)


def _gain(b: _Block) -> Tensor:
    gain = _pick(b.d, b.target) - b.log_mean
    return gain.masked_fill(_pick(b.logp, b.target).isneginf(), torch.nan)  # of -inf minus -inf


def _kl_rev(b: _Block) -> Tensor:
    # E_p[r log r - r + 1] with r = q/p; the last two terms sum to 0.
    return b.kernel(_times(b.q, b.delta) - b.q + b.prob, 1 / 2, 1 / 3, 1 / 8, 1 / 30)


def _js(b: _Block) -> Tensor:
    # E_p[r log r - (1 + r) log((1 + r) / 2)] / 2 with r = q/p.
    log_mid = torch.log1p(torch.expm1(b.delta.clamp(max=_SAFE_EXP)) / 2)
    log_mid = torch.where(b.delta > _SAFE_EXP, b.delta - math.log(2), log_mid)
    exact = _times(b.q, b.delta) - (b.prob + b.q) * log_mid
    return b.kernel(exact, 1 / 4, 1 / 8, 1 / 32, 1 / 192) / 2


def _tv(b: _Block) -> Tensor:
    excess = b.prob * torch.expm1(b.delta).abs()
    excess = torch.where(b.delta > _SAFE_EXP, (b.q - b.prob).abs(), excess)
    return _total(excess) / 2


def _entropy(b: _Block) -> Tensor:
    return -_total(_times(b.q, b.logp + b.delta))


def _rank(b: _Block) -> Tensor:
    z = b.logp + b.d
    own = _pick(z, b.target)
    return (1.0 + (z > own[..., None]).sum(-1).float()).masked_fill(own.isnan(), torch.nan)


def _base_rank(b: _Block) -> Tensor:
    own = _pick(b.logp, b.target)
    rank = (1.0 + (b.logp > own[..., None]).sum(-1).float()).masked_fill(own.isnan(), torch.nan)
    return rank.expand_as(b.log_mean)


def _top1(b: _Block) -> Tensor:
    return ((b.logp + b.d).argmax(-1) == b.logp.argmax(-1)).float()


_REDUCERS: dict[Reducer, Callable[[_Block], Tensor]] = {
    "gain": _gain,
    "kl": lambda b: b.kl,
    "kl_rev": _kl_rev,
    "js": _js,
    "tv": _tv,
    "entropy": _entropy,
    "rank": _rank,
    "base_rank": _base_rank,
    "top1": _top1,
}
