"""Next-token distributions in numpy: their top with its tail, and the choice of a token."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.scoring import TokenDist

F64: TypeAlias = npt.NDArray[np.float64]
_SMALLEST: Final = float(np.log(np.finfo(np.float32).tiny))


def log_softmax(logits: npt.NDArray[np.floating]) -> F64:
    """Return log-probs in nats over the last axis, in float64."""
    z = logits.astype(np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def top_of(logp: F64, top_k: int) -> TokenDist:
    """Return the top of one distribution from its log-probs [K]; the tail is measured, not assumed."""
    order = np.argsort(-logp, kind="stable")
    head, rest = order[:top_k], order[top_k:]
    tail = float(np.logaddexp.reduce(logp[rest])) if rest.size else None
    if tail is not None and tail < _SMALLEST:
        tail = 0.0
    return TokenDist(head.astype(np.int64), logp[head].astype(np.float32), logp.size, tail)


def pick(logp: F64, rng: np.random.Generator, *, temperature: float, top_p: float) -> int:
    """Return the next token: the most probable, or one drawn from the fewest that hold `top_p` of the mass."""
    if temperature <= 0:
        return int(np.argmax(logp))
    scaled = np.exp(log_softmax(logp / temperature))
    order = np.argsort(-scaled, kind="stable")
    before = np.cumsum(scaled[order]) - scaled[order]
    kept = order[before < top_p]
    return int(rng.choice(kept, p=scaled[kept] / scaled[kept].sum()))
