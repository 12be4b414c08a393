"""Differentiates the base along an adapter's factors; no gradient of any weight is formed."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from dlm_sway.backends.mlx_layers import Net, Terms
from dlm_sway.backends.mlx_sites import Sites


def factor_gradients(
    net: Net, sites: Sites, ids: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the gradient of the summed log-prob of `targets` with respect to each B at B = 0, s included.

    Args:
        net: the model.
        sites: its adapted modules.
        ids: int64[n], what it reads.
        targets: int64[p], the tokens that its last p logits predict.

    Returns:
        float32[d_out, r] for each module without DoRA.
    """
    with mx.stream(net.device):
        return _gradients(net, sites, ids, targets)


def _gradients(
    net: Net, sites: Sites, ids: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float32]]:
    plain = sites.plain()
    a_t = [mx.array(np.ascontiguousarray(s.factors.a.T) * np.float32(s.factors.scale)) for s in plain]  # [d_in, r]
    tokens = mx.array(ids[None].astype(np.int32))  # [1, n]
    places = mx.arange(len(ids) - len(targets), len(ids))
    wanted = mx.array(targets.astype(np.int32))[:, None]  # [p, 1]

    def log_prob(b_t: list[Any]) -> Any:
        terms = {s.name: Terms(a, b) for s, a, b in zip(plain, a_t, b_t, strict=True)}
        with sites.holding([terms.get(site.name) for site in sites.all]):
            logits = net.logits(net.hidden(tokens, mx.zeros_like(places), places))  # [p, K]
        return (mx.take_along_axis(logits, wanted, axis=1)[:, 0] - mx.logsumexp(logits, axis=1)).sum()

    zeros = [mx.zeros((1, *reversed(s.factors.b.shape))) for s in plain]  # [1, r, d_out]
    found = mx.grad(log_prob)(zeros)
    return {s.name: np.array(g[0].T, dtype=np.float32) for s, g in zip(plain, found, strict=True)}
