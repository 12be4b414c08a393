"""Logits to per-position scalars, exact over the full vocabulary, in fp32.

Everything is computed from the logit difference to the base, d = z_view - z_base, centred under the base's
distribution p. Then log-prob differences and divergences are moments of small numbers instead of differences of
large ones: a KL of 1e-9 nat keeps its digits, where `sum p (log p - log q)` would drown in rounding.

    Ed = 0 after centring,  L = log E_p[exp d],  log q - log p = d - L,  KL(p || q) = L - E_p[d]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlm_sway.engine.ask import Reducer

_SAFE_EXP = 60.0  # exp beyond this times a tiny p could overflow fp32


@dataclass(slots=True)
class _Block:
    """What all reducers share.

    Attributes:
        logp: [p, K] the base's log-probs.
        prob: [p, K] the base's probabilities.
        delta: [v, p, K] log q - log p, q a view.
        target: [p] token ids, -1 where there is none.
    """

    logp: Tensor
    prob: Tensor
    delta: Tensor
    target: Tensor
    kl: Tensor

    def expect(self, x: Tensor) -> Tensor:
        """Return the mean of x [v, p, K] under the base, [v, p]."""
        return torch.einsum("pk,vpk->vp", self.prob, x)


def reduce_block(base: Tensor, views: Tensor, target: Tensor, reducers: Iterable[Reducer]) -> dict[str, Tensor]:
    """Compare views with the base at some positions.

    Args:
        base: [p, K] logits of the base.
        views: [v, p, K] logits of the views; overwritten.
        target: int64[p], the token at each position, -1 where there is none.
        reducers: the scalars wanted.

    Returns:
        float32[v, p] for each reducer, and `base_logprob` float32[p].
    """
    logp = torch.log_softmax(base.float(), dim=-1)
    prob = logp.exp()
    delta = _log_ratio(base.float(), logp, prob, views.float())
    block = _Block(logp, prob, delta, target, kl=-torch.einsum("pk,vpk->vp", prob, delta))
    out: dict[str, Tensor] = {name: _REDUCERS[name](block) for name in reducers}
    out["base_logprob"] = _pick(logp, target)
    return out


def _log_ratio(base: Tensor, logp: Tensor, prob: Tensor, views: Tensor) -> Tensor:
    """Return log q - log p [v, p, K] in place of the views' logits."""
    d = views.sub_(base)
    # Vocabulary entries that the model masks have -inf on both sides; they carry no mass and no difference.
    if bool((masked := torch.isinf(base)).any()):
        d.masked_fill_(masked, 0.0)
    d.sub_(torch.einsum("pk,vpk->vp", prob, d)[..., None])
    if float(d.max()) > _SAFE_EXP:
        q = torch.log_softmax(d + logp, dim=-1)
        return torch.sub(q, logp, out=d).nan_to_num_(nan=0.0)
    log_mean = torch.log1p(torch.einsum("pk,vpk->vp", prob, torch.expm1(d)))
    return d.sub_(log_mean[..., None])


def _pick(x: Tensor, target: Tensor) -> Tensor:
    """Return x[..., target] as [..., p]; NaN where there is no target."""
    index = target.clamp(min=0)[:, None].expand(*x.shape[:-1], 1)
    picked = x.gather(-1, index)[..., 0]
    return picked.masked_fill(target < 0, torch.nan)


def _kl_rev(b: _Block) -> Tensor:
    return b.expect(b.delta.exp() * b.delta)


def _js(b: _Block) -> Tensor:
    # With r = q/p: JS = 1/2 E_p[r log r - (1 + r) log((1 + r)/2)].
    ratio = b.delta.exp()
    return 0.5 * b.expect(ratio * b.delta - (1 + ratio) * torch.log1p((ratio - 1) / 2))


def _tv(b: _Block) -> Tensor:
    return 0.5 * b.expect(torch.expm1(b.delta).abs_())


def _entropy(b: _Block) -> Tensor:
    logq = b.logp + b.delta
    return -(logq.exp() * logq.clamp(min=-1e4)).sum(-1)


def _rank(b: _Block) -> Tensor:
    logq = b.logp + b.delta
    return 1.0 + (logq > _pick(logq, b.target)[..., None]).sum(-1).float()


def _top1(b: _Block) -> Tensor:
    return ((b.logp + b.delta).argmax(-1) == b.logp.argmax(-1)).float()


_REDUCERS: dict[Reducer, Callable[[_Block], Tensor]] = {
    "gain": lambda b: _pick(b.delta, b.target),
    "kl": lambda b: b.kl,
    "kl_rev": _kl_rev,
    "js": _js,
    "tv": _tv,
    "entropy": _entropy,
    "rank": _rank,
    "top1": _top1,
}
