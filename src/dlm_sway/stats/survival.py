"""How much of an effect is left in another artefact, and at which scale of the effect it would look like that.

With b, f and o the log-probs of a token under the base, the fine-tune and the artefact, the survival ratio is the slope
of o - b on f - b over tokens: 1 when o = f, 0 when o = b, and unmoved by noise that is not along the effect. There is
an intercept, because a coarse format lowers all log-probs alike, whatever the adapter does; without it that loss would
read as a lost effect. The scale is the least-squares lam of o against l(lam), piecewise linear between measured scales,
with the same intercept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._interval import Bounds, bounds
from dlm_sway.stats._ratio import ClusterSums

_TAIL: Final = 0.025
_SAME: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Survival:
    """What is left of an effect.

    Attributes:
        ratio: share of the effect that is left.
        low: lower end of its 95 % interval over clusters; None with one cluster.
        high: upper end.
        lam: scale that explains the artefact best.
        lam_low: lower end of its 95 % interval; None with one cluster.
        lam_high: upper end.
        unexplained: mean square of what the best scale leaves, over that of the effect; 0 is a perfect fit, above 1 the
            rest is larger than the effect.
        unexplained_low: lower end of its 95 % interval; None with one cluster.
        unexplained_high: upper end.
        shift: mean of the artefact's log-probs minus that of the fine-tune's, nat per token.
        effect: root mean square of the effect, nat per token.
        method: how the intervals were made.
    """

    ratio: float
    low: float | None
    high: float | None
    lam: float
    lam_low: float | None
    lam_high: float | None
    unexplained: float
    unexplained_low: float | None
    unexplained_high: float | None
    shift: float
    effect: float
    method: str


def survival(
    scales: Sequence[float],
    at_scale: npt.ArrayLike,
    observed: npt.ArrayLike,
    clusters: Sequence[str],
    *,
    rng: np.random.Generator,
) -> Survival:
    """Return what is left of the effect that scale 1 has.

    Args:
        scales: G ascending scales, 0 and 1 among them.
        at_scale: f64[G, P], log-prob of each token at each scale, nats.
        observed: f64[P], log-prob of the same tokens under the artefact.
        clusters: P names of what varies together.
        rng: for the bootstrap under 30 clusters.

    Raises:
        BadInputError: shapes that do not agree, a value that is not finite, no effect at all, or one that is the same
            on every token.
    """
    grid, seen = np.asarray(at_scale, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    _survival_iv(scales, grid, seen, clusters)
    base, tuned = grid[list(scales).index(0.0)], grid[list(scales).index(1.0)]
    size = float(np.sqrt(((tuned - base) ** 2).mean()))
    shift = float((seen - base).mean() - (tuned - base).mean())
    grid, seen = grid - grid.mean(axis=1, keepdims=True), seen - seen.mean()
    base, tuned = grid[list(scales).index(0.0)], grid[list(scales).index(1.0)]
    effect = tuned - base
    left = bounds((_summed((seen - base) * effect, effect**2, clusters),), tail=_TAIL, rng=rng)
    k, lam = _nearest(scales, grid, seen)
    step, width = grid[k + 1] - grid[k], scales[k + 1] - scales[k]
    within: Bounds = bounds((_summed((seen - grid[k]) * step, step**2, clusters),), tail=_TAIL, rng=rng)
    rest = seen - (grid[k] + (lam - scales[k]) / width * step)
    beside = bounds((_summed(rest**2, effect**2, clusters),), tail=_TAIL, rng=rng)
    return Survival(
        ratio=left.estimate,
        low=left.low,
        high=left.high,
        lam=lam,
        lam_low=None if within.low is None else scales[k] + width * within.low,
        lam_high=None if within.high is None else scales[k] + width * within.high,
        unexplained=beside.estimate,
        unexplained_low=beside.low,
        unexplained_high=beside.high,
        shift=shift,
        effect=size,
        method=left.method,
    )


def _survival_iv(
    scales: Sequence[float], grid: npt.NDArray[np.float64], seen: npt.NDArray[np.float64], clusters: Sequence[str]
) -> None:
    where = "survival"
    if sorted(scales) != list(scales) or not {0.0, 1.0} <= set(scales):
        raise BadInputError(f"scales must ascend and hold 0 and 1, got {list(scales)}", where=where)
    if grid.shape != (len(scales), seen.size) or len(clusters) != seen.size:
        raise BadInputError(f"shapes {grid.shape}, {seen.shape} and {len(clusters)} do not agree", where=where)
    if not (np.isfinite(grid).all() and np.isfinite(seen).all()):
        raise BadInputError("a log-prob is not finite", where=where)
    effect = grid[list(scales).index(1.0)] - grid[list(scales).index(0.0)]
    if not np.any(effect):
        raise BadInputError("there is no effect to survive", where=where)
    if np.ptp(effect) <= _SAME * np.abs(effect).max():
        raise BadInputError("the effect is the same on every token, so it cannot be told from a shift", where=where)


def _nearest(
    scales: Sequence[float], grid: npt.NDArray[np.float64], seen: npt.NDArray[np.float64]
) -> tuple[int, float]:
    """Return the segment and the scale in it that come nearest to what was seen, in squares."""
    found: list[tuple[float, int, float]] = []
    for k in range(len(scales) - 1):
        step, gap = grid[k + 1] - grid[k], seen - grid[k]
        energy = float(step @ step)
        share = float(np.clip(gap @ step / energy, 0.0, 1.0)) if energy > 0 else 0.0
        rest = gap - share * step
        found.append((float(rest @ rest), k, scales[k] + share * (scales[k + 1] - scales[k])))
    _, k, lam = min(found)
    return k, lam


def _summed(top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64], clusters: Sequence[str]) -> ClusterSums:
    index: dict[str, int] = {}
    member = np.array([index.setdefault(name, len(index)) for name in clusters])
    above, below = (np.bincount(member, weights=x).astype(np.float64) for x in (top, bottom))
    some = below > 0
    return ClusterSums(above[some], below[some], int(some.sum()))
