"""Can two sets be told apart by a score? The area under the ROC curve, its interval, and a permutation of labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, finite_vector, inside_unit, usable

N_PERMUTATIONS: Final = 9_999
_BATCH_ELEMENTS: Final = 1 << 21
_TIE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Auc:
    """How well a score tells a first set from a second.

    Attributes:
        estimate: probability that one of the first scores above one of the second; a tie counts half.
        low: lower end of the two-sided interval.
        high: upper end.
        p: one-sided p-value that the first scores higher, by permuting labels.
        n_first: members of the first set.
        n_second: members of the second.
    """

    estimate: float
    low: float
    high: float
    p: float
    n_first: int
    n_second: int


def auc(first: npt.ArrayLike, second: npt.ArrayLike, *, confidence: float = 0.95, rng: np.random.Generator) -> Auc:
    """Return the area under the ROC curve of a score that should be higher in the first set.

    The interval is Newcombe's (2006), "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic", part 2, method 5: it has width also where the sets are told apart without error. p comes from 9,999
    permutations of labels, the observed one counted, and is valid for exchangeable units at any size.

    Args:
        first: f64[m], one score a unit (a document), m >= 1.
        second: f64[n], n >= 1.
        confidence: of the two-sided interval; for a one-sided 95 % bound ask for 0.90.
        rng: for the permutations.

    Raises:
        BadInputError: a set is empty, or a score is not finite.
    """
    a, b = finite_vector(first, where="auc: first"), finite_vector(second, where="auc: second")
    z = -float(special.ndtri((1 - inside_unit(confidence, where="auc: confidence")) / 2))
    areas = _areas(np.concatenate([a, b])[:, None], len(a), rng=rng)[:, 0]
    estimate = float(areas[0])
    low, high = newcombe_bounds(estimate, len(a), len(b), z=z)
    p = float((areas >= estimate - _TIE).mean())
    return Auc(estimate, low, high, p, len(a), len(b))


def newcombe_bounds(area: float, m: int, n: int, *, z: float) -> tuple[float, float]:
    """Return the areas from which `area` is `z` standard errors away, on either side."""

    def se(x: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - x) / (2 - x) + x / (1 + x))
        return math.sqrt(max(0.0, x * (1 - x) / (m * n) * spread))

    return _edge(area, 0.0, lambda x: area - x - z * se(x)), _edge(area, 1.0, lambda x: x - area - z * se(x))


def _edge(inner: float, outer: float, gap: Callable[[float], float]) -> float:
    """Return where `gap` changes sign between the estimate, where it is negative, and the end of the range."""
    near, far = inner, outer
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if gap(middle) < 0 else (near, middle)
    return far


@dataclass(frozen=True, slots=True)
class FormTest:
    """Whether two sets differ in any of several features.

    Attributes:
        areas: f64[K], area under the ROC curve of each feature, the first set above the second.
        p: that none differs: the largest distance from 1/2 among permutations of labels.
    """

    areas: FloatArray
    p: float


def differ_in_any(first: npt.ArrayLike, second: npt.ArrayLike, *, rng: np.random.Generator) -> FormTest:
    """Return whether two sets of units differ in any of K features, at the level of one test (maxT).

    Args:
        first: f64[m, K].
        second: f64[n, K].
        rng: for the permutations.

    Raises:
        BadInputError: a set is empty, shapes do not fit, or a value is not finite.
    """
    a, b = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):  # noqa: PLR2004 (units by features)
        raise BadInputError(f"sets of shapes {a.shape} and {b.shape} do not fit", where="differ_in_any")
    both = np.concatenate([a, b])
    if not usable(both).all():
        raise BadInputError("a feature is not finite", where="differ_in_any")
    areas = _areas(both, len(a), rng=rng)
    distance = np.abs(areas - 0.5).max(axis=1)
    return FormTest(areas[0], float((distance >= distance[0] - _TIE).mean()))


def _areas(values: FloatArray, m: int, *, rng: np.random.Generator) -> FloatArray:
    """Return f64[1 + N, K]: the area of each feature as observed, then with permuted labels."""
    n = len(values) - m
    ranks = stats.rankdata(values, axis=0)
    out = np.empty((1 + N_PERMUTATIONS, values.shape[1]))
    out[0] = ranks[:m].sum(axis=0)
    step = max(1, _BATCH_ELEMENTS // (len(values) + m * values.shape[1]))
    for begin in range(1, 1 + N_PERMUTATIONS, step):
        rows = min(step, 1 + N_PERMUTATIONS - begin)
        chosen = np.argpartition(rng.random((rows, len(values))), m - 1, axis=1)[:, :m]
        out[begin : begin + rows] = ranks[chosen].sum(axis=1)
    return np.asarray((out - m * (m + 1) / 2) / (m * n))
