"""Do two sets of clusters differ? A studentised permutation of their labels (null N4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from dlm_sway.stats._inputs import FloatArray, IntArray
from dlm_sway.stats._ratio import ClusterSums

MAX_EXACT: Final = 1 << 16
N_PERMUTATIONS: Final = 9_999

_BATCH_ELEMENTS: Final = 1 << 21
_TIE: Final = 1e-9
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class LabelTest:
    """The permutation test of a positive difference of ratios.

    Attributes:
        p: one-sided p-value.
        exact: whether all labellings were listed.
        n_labellings: labellings compared, the observed one not counted where they are random.
    """

    p: float
    exact: bool
    n_labellings: int


def permute_labels(a: ClusterSums, b: ClusterSums, *, rng: np.random.Generator) -> LabelTest:
    """Return the one-sided p-value of `ratio(a) - ratio(b)` when clusters change sides.

    The difference is divided by its standard error at every labelling, so p is exact where the clusters are
    exchangeable and right in the limit where only the two ratios are equal (Janssen 1997; Chung and Romano 2013);
    with one cluster on a side there is no standard error, and the plain difference is used. Up to 2^16 labellings
    all are listed; beyond, 9,999 random ones and the +1 rule.
    """
    # The roles may be swapped at no loss: gathering the smaller side is cheaper, and the difference changes sign.
    small, large, sign = (a, b, 1.0) if a.n_clusters <= b.n_clusters else (b, a, -1.0)
    moments = _moments(small, large)
    n, k = len(moments), small.n_clusters
    observed = sign * _statistic(moments, np.arange(k)[None, :])[0]
    threshold = observed - _TIE * abs(observed) if math.isfinite(observed) else observed
    exact = math.comb(n, k) <= MAX_EXACT
    reached = total = 0
    for picked in _every_choice(n, k) if exact else _random_choices(n, k, rng=rng):
        reached += int(np.sum(sign * _statistic(moments, picked) >= threshold))
        total += len(picked)
    return LabelTest(reached / total if exact else (1 + reached) / (1 + total), exact=exact, n_labellings=total)


def _moments(small: ClusterSums, large: ClusterSums) -> FloatArray:
    """Return f64[n, 5]: T, N, TT, TN, NN of each cluster, T centred by the pooled ratio.

    Centring moves both ratios alike, so differences stay, and the squares lose no digits to a common offset.
    """
    total = np.concatenate([small.total, large.total])
    tokens = np.concatenate([small.tokens, large.tokens])
    centred = total - total.sum() / tokens.sum() * tokens
    centred[np.abs(centred) <= _ROUNDING * np.max(np.abs(total))] = 0.0
    return np.stack([centred, tokens, centred**2, centred * tokens, tokens**2], axis=1)


def _statistic(moments: FloatArray, picked: IntArray) -> FloatArray:
    """Return f64[P]: studentised ratio of the picked clusters minus that of the others; picked i64[P, k]."""
    side = moments[picked].sum(axis=1)
    other = moments.sum(axis=0) - side
    k, n = picked.shape[1], len(moments)
    gap = side[:, 0] / side[:, 1] - other[:, 0] / other[:, 1]
    if min(k, n - k) < 2:  # noqa: PLR2004 (one cluster has no spread)
        return np.asarray(gap, dtype=np.float64)
    variance = _ratio_variance(side, k) + _ratio_variance(other, n - k)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap == 0, 0.0, gap / np.sqrt(variance))


def _ratio_variance(sums: FloatArray, c: int) -> FloatArray:
    total, tokens, tt, tn, nn = sums.T
    ratio = total / tokens
    squares = tt - 2 * ratio * tn + ratio**2 * nn
    # What is left of equal terms after subtraction is rounding, not spread.
    squares = np.where(squares <= _ROUNDING * tt, 0.0, squares)
    return np.asarray(c / (c - 1) * squares / tokens**2, dtype=np.float64)


def _every_choice(n: int, k: int) -> Iterator[IntArray]:
    step = max(1, _BATCH_ELEMENTS // (5 * k))
    choices = itertools.combinations(range(n), k)
    while batch := list(itertools.islice(choices, step)):
        yield np.array(batch)


def _random_choices(n: int, k: int, *, rng: np.random.Generator) -> Iterator[IntArray]:
    step = max(1, _BATCH_ELEMENTS // (n + 5 * k))
    for start in range(0, N_PERMUTATIONS, step):
        keys = rng.random((min(step, N_PERMUTATIONS - start), n))
        yield np.argpartition(keys, k - 1, axis=1)[:, :k]
