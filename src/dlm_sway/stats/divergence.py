"""Reference divergences between next-token distributions: float64, exact where mass is zero, for tests and small k.

Inputs are natural log-probs with the vocabulary on the last axis; leading axes broadcast. -inf is a probability of
zero. Results are in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.scoring import TokenDist
from dlm_sway.stats._inputs import FloatArray, IntArray

_MASS_TOLERANCE: Final = 1e-3
"""How far the probabilities may sum from 1: fp32 log-softmax stays a hundred times under it."""
_RESOLUTION: Final = 1e-6
"""What 1 minus a sum of fp32 probabilities can be wrong by: entropy (11 nat at most) times half an ulp (6e-8)."""


def kl(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """Return KL(p || q) = sum p (log p - log q), in [0, inf].

    Summed as `p (log p - log q) - p + q` (the Bregman form): no term is negative, so nothing cancels, and an error
    in the normalisation of either side enters squared only. p = 0 adds nothing; q = 0 < p gives infinity.

    Args:
        logp: f[..., vocab].
        logq: f[..., vocab].

    Returns:
        f64[...], the leading axes.

    Raises:
        BadInputError: vocabularies that differ, NaN, or probabilities that do not sum to 1 within 1e-3.
    """
    p, q = _pair_iv(logp, logq, where="kl")
    return _kl(p, q)


def _kl(logp: FloatArray, logq: FloatArray) -> FloatArray:
    logp, logq = np.broadcast_arrays(logp, logq)
    p, q = np.exp(logp), np.exp(logq)
    # Where p is 0 the difference may be inf - inf; its weight is 0 and its term is q.
    ratio = np.subtract(logp, logq, out=np.zeros(logp.shape), where=p > 0)
    return np.asarray(np.maximum(0.0, np.sum(p * ratio - p + q, axis=-1)), dtype=np.float64)


def js(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """Return the Jensen-Shannon divergence, `(KL(p || m) + KL(q || m)) / 2` with m the mean of p and q.

    Symmetric, in [0, ln 2] (Lin 1991). Arguments, shapes and errors as for `kl`.
    """
    p, q = _pair_iv(logp, logq, where="js")
    mean = np.logaddexp(p, q) - math.log(2)
    return np.asarray(np.minimum(math.log(2), 0.5 * (_kl(p, mean) + _kl(q, mean))), dtype=np.float64)


def total_variation(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """Return the total variation distance, `sum |p - q| / 2`, in [0, 1]. Arguments, shapes and errors as for `kl`."""
    p, q = _pair_iv(logp, logq, where="total_variation")
    return np.asarray(np.minimum(1.0, 0.5 * np.sum(np.abs(np.exp(p) - np.exp(q)), axis=-1)), dtype=np.float64)


def entropy(logp: npt.ArrayLike) -> FloatArray:
    """Return the Shannon entropy, `-sum p log p`, in [0, ln vocab] up to rounding.

    Args:
        logp: f[..., vocab].

    Returns:
        f64[...], the leading axes.

    Raises:
        BadInputError: as for `kl`.
    """
    log = _log_probs_iv(logp, where="entropy")
    p = np.exp(log)
    terms = np.multiply(p, log, out=np.zeros(log.shape), where=p > 0)
    return np.asarray(np.maximum(0.0, -np.sum(terms, axis=-1)), dtype=np.float64)


def _pair_iv(logp: npt.ArrayLike, logq: npt.ArrayLike, *, where: str) -> tuple[FloatArray, FloatArray]:
    p, q = _log_probs_iv(logp, where=f"{where}: logp"), _log_probs_iv(logq, where=f"{where}: logq")
    if p.shape[-1] != q.shape[-1]:
        raise BadInputError(f"vocabularies of {p.shape[-1]} and {q.shape[-1]} entries", where=where)
    return p, q


def _log_probs_iv(logp: npt.ArrayLike, *, where: str) -> FloatArray:
    log = np.asarray(logp, dtype=np.float64)
    if log.ndim == 0 or log.shape[-1] == 0:
        raise BadInputError(f"needs a vocabulary on the last axis, got shape {log.shape}", where=where)
    if np.isnan(log).any():
        raise BadInputError("holds NaN", where=where, remedy="check the model's logits; they are not finite")
    off = np.abs(np.exp(np.minimum(log, 1.0)).sum(axis=-1) - 1)
    if np.any(off > _MASS_TOLERANCE):
        raise BadInputError(
            f"probabilities sum to 1 within {off.max():.2g} only",
            where=where,
            remedy="normalise them over the whole vocabulary, or use with_other_bucket for a top-k",
        )
    return log


@dataclass(frozen=True, slots=True, eq=False)
class Bucketed:
    """Two top-k lists on one common partition of the vocabulary.

    Attributes:
        token_ids: i64[k], tokens that both lists hold, ascending.
        logp: f64[k + 1], the first side's log-probs of them, then of everything else.
        logq: f64[k + 1], the second side's.
    """

    token_ids: IntArray
    logp: FloatArray
    logq: FloatArray


def with_other_bucket(p: TokenDist, q: TokenDist) -> Bucketed:
    """Return both sides over their shared tokens plus one bucket that holds the rest of each side's mass.

    Merging outcomes never raises a divergence (data-processing inequality), so KL, JS and total variation of the
    result are lower bounds of the full ones, up to the rounding of fp32 lists (under 1e-4 nat); with two whole
    vocabularies they are equal. Tokens are matched by id, never by rank. The mass outside a list is its
    `tail_logprob` where that is negative; else what is missing to 1, plus fp32's resolution of such a sum (1e-6),
    so that rounding makes no KL infinite.

    Args:
        p: the first side, such as the base.
        q: the second side, of the same vocabulary.

    Raises:
        BadInputError: vocabularies of different size, or a token listed twice.
    """
    _with_other_bucket_iv(p, q)
    shared, in_p, in_q = np.intersect1d(p.token_ids, q.token_ids, assume_unique=True, return_indices=True)
    return Bucketed(shared.astype(np.int64), _close(p, in_p), _close(q, in_q))


def _with_other_bucket_iv(p: TokenDist, q: TokenDist) -> None:
    where = "with_other_bucket"
    if p.vocab_size != q.vocab_size:
        raise BadInputError(f"vocabularies of {p.vocab_size} and {q.vocab_size} entries", where=where)
    for side, dist in (("p", p), ("q", q)):
        if np.unique(dist.token_ids).size != dist.token_ids.size:
            raise BadInputError("a token is listed twice", where=f"{where}: {side}")


def _close(dist: TokenDist, kept: IntArray) -> FloatArray:
    """Return f64[k + 1]: the kept log-probs, then the log of what the others and the tail hold together."""
    logprobs = dist.logprobs.astype(np.float64)
    whole = kept.size == dist.vocab_size
    rest = 0.0 if whole else float(np.exp(np.delete(logprobs, kept)).sum()) + _tail(dist)
    return np.append(logprobs[kept], math.log(rest) if rest > 0 else -math.inf)


def _tail(dist: TokenDist) -> float:
    if dist.tail_logprob is not None and dist.tail_logprob < 0:
        return math.exp(dist.tail_logprob)
    return max(0.0, 1.0 - float(np.exp(dist.logprobs.astype(np.float64)).sum())) + _RESOLUTION
