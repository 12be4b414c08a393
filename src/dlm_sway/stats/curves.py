"""How an effect grows with the adapter's scale, and the name of that shape.

A healthy adapter is smooth and rising: a divergence grows about with the square of the scale while the change is small,
and more slowly later; both a linear and a quadratic response are healthy. The other names are for what is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from dlm_sway.stats._inputs import FloatArray, count, not_negative
from dlm_sway.stats._sweep import Sweep, scales_iv, sweep_of

ShapeName: TypeAlias = Literal["healthy", "saturated", "step", "overshoot-and-crash", "flat"]
NAMES: Final[tuple[ShapeName, ...]] = get_args(ShapeName)

FLOOR_MULTIPLE: Final = 10.0
"""An effect counts from here on, in numeric floors (N0)."""
SATURATED: Final = 0.25
"""Exponent of the effect between half and full scale: below it doubling the scale adds less than a fifth."""
STEP: Final = 0.6
"""Share of the whole rise in one interior interval; a cubic response on the usual scales has 0.31 in its largest."""
_BESIDE: Final = 3.0  # a step rises so many times as much as the intervals on both sides
FALL: Final = 0.25
"""Share of the largest divergence that is gone at the largest scale."""
CRASH: Final = 0.5
"""Share of the best gain that is lost beyond its peak."""
SMALLEST_CRASH: Final = 0.1
"""Nat per token: less is no crash, whatever the share."""
SUPPORT: Final = 0.9
"""Share of resamples that have to bear the same name."""
FEWEST: Final = 5
_TINY: Final = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class Feature:
    """A number that describes a curve.

    Attributes:
        estimate: of all items; None where it has no meaning.
        low: 2.5 % of the resamples; None with too few clusters.
        high: 97.5 %.
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The named shape of a response, and how sure the items make us of the name.

    Attributes:
        name: of the curves over all items.
        support: share of the resamples by name; the sum is 1. Empty with too few clusters.
        decided: whether at least 0.9 of the resamples bear the same name.
        at_full: share of the resamples in which the gain has crashed at scale 1 already, and not only beyond; None with
            too few clusters.
        crashed_at_full: whether it has, over all items and in at least 0.9 of the resamples; then the name is
            `overshoot-and-crash`, and decided.
        features: `exponent` of the effect between the two smallest scales, `growth` its exponent between half and full
            scale, `curvature` the second difference over the largest effect, `largest_step` the largest share of the
            rise in an interior interval, `fall` of the effect beyond its largest, `lost` of the gain beyond its peak
            (nat per token).
        n_clusters: of the effect.
        method: how the names of resamples were made.
    """

    name: ShapeName
    support: Mapping[ShapeName, float]
    decided: bool
    at_full: float | None
    crashed_at_full: bool
    features: Mapping[str, Feature]
    n_clusters: int
    method: str


def shape(  # noqa: PLR0917 (an effect and a gain, each with its items)
    lambdas: npt.ArrayLike,
    effect: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    gain: npt.ArrayLike | None = None,
    gain_tokens: npt.ArrayLike | None = None,
    gain_clusters: Sequence[str] | None = None,
    *,
    floor: float = 0.0,
    n_resamples: int = 2_000,
    rng: np.random.Generator,
) -> Shape:
    """Return the name of a dose-response curve.

    In this order: `flat` when the effect at scale 1 is within ten numeric floors; `overshoot-and-crash` when the gain
    lacks, at scale 1 or at the largest, half of the best up to there (at least 0.1 nat/token), or the effect loses a
    quarter by the largest; `step` when one interior interval has 60 %
    of the rise and three times that of each neighbour; `saturated` when the effect grows between half and full scale
    with an exponent under 0.25; else `healthy`. The name is decided when 90 % of the resamples over clusters bear it.

    Args:
        lambdas: f64[L], rising positive scales with 1 among them; scale 0, where all is 0, is understood.
        effect: f64[L, n], a divergence that is not negative: an item's mean under each scale.
        clusters: n names.
        gain: f64[L, k], an item's sum of log-prob gains under each scale; None: not asked.
        gain_tokens: i64[k].
        gain_clusters: k names.
        floor: N0.
        n_resamples: B.
        rng: for the resamples.

    Raises:
        BadInputError: scales, arrays or names that do not fit, values that are not finite.
    """
    lam, full = scales_iv(lambdas, where="shape")
    not_negative(floor, where="shape: floor")
    count(n_resamples, where="shape: n_resamples", at_least=1)
    n = np.asarray(effect).shape[-1] if np.ndim(effect) else 0
    by_effect = sweep_of(effect, np.ones(n), clusters, n_settings=lam.size, where="shape: effect")
    by_gain = None
    if gain is not None and gain_tokens is not None:
        by_gain = sweep_of(gain, gain_tokens, gain_clusters, n_settings=lam.size, where="shape: gain")
    curves = _Curves(by_effect.ratios[None], None if by_gain is None else by_gain.ratios[None], lam, full, floor)
    (name,) = curves.names()
    smallest = min(s.n_clusters for s in (by_effect, by_gain) if s is not None)
    if smallest < FEWEST:
        features = {key: Feature(_number(value[0])) for key, value in curves.features().items()}
        return Shape(
            name=NAMES[name],
            support={},
            decided=False,
            at_full=None,
            crashed_at_full=False,
            features=features,
            n_clusters=by_effect.n_clusters,
            method="too few clusters",
        )
    again = _Curves(by_effect.resampled(n_resamples, rng=rng), _resampled(by_gain, n_resamples, rng), lam, full, floor)
    counts = np.bincount(again.names(), minlength=len(NAMES)) / n_resamples
    support = {NAMES[i]: float(share) for i, share in enumerate(counts) if share > 0}
    spread, at_full = again.features(), float((again.crashed(full) & ~again.flat()).mean())
    return Shape(
        name=NAMES[name],
        support=support,
        decided=support.get(NAMES[name], 0.0) >= SUPPORT,
        at_full=at_full,
        crashed_at_full=bool(curves.crashed(full)[0] & ~curves.flat()[0]) and at_full >= SUPPORT,
        features={key: _feature(value[0], spread[key]) for key, value in curves.features().items()},
        n_clusters=by_effect.n_clusters,
        method=f"{n_resamples:,} resamples over clusters",
    )


def _resampled(sweep: Sweep | None, n_resamples: int, rng: np.random.Generator) -> FloatArray | None:
    return None if sweep is None else sweep.resampled(n_resamples, rng=rng)


class _Curves:
    """Many curves at once: `effect` and `gain` are f64[B, L]."""

    def __init__(self, effect: FloatArray, gain: FloatArray | None, lam: FloatArray, full: int, floor: float) -> None:
        self.effect, self.gain, self.lam, self.full, self.floor = effect, gain, lam, full, floor
        self.largest = np.maximum(effect.max(axis=1), _TINY)
        rise = np.diff(np.concatenate([np.zeros((len(effect), 1)), effect], axis=1), axis=1)
        self.rise = rise / self.largest[:, None]  # [B, L], share of the largest effect in each interval

    def names(self) -> npt.NDArray[np.int64]:
        """Return the index of each curve's name."""
        checks: dict[ShapeName, npt.NDArray[np.bool_]] = {
            "flat": self.flat(),
            "overshoot-and-crash": self._overshot(),
            "step": np.asarray(self._is_step().any(axis=1)),
            "saturated": self._exponent(self._half(), self.full) < SATURATED,
        }
        chosen = [NAMES.index(key) for key in checks]
        return np.asarray(np.select(list(checks.values()), chosen, NAMES.index("healthy")), dtype=np.int64)

    def features(self) -> dict[str, FloatArray]:
        """Return what describes each curve."""
        x, y = np.concatenate([[0.0], self.lam]), np.concatenate([np.zeros((len(self.effect), 1)), self.effect], axis=1)
        slopes = np.diff(y, axis=1) / np.diff(x)
        out = {
            "exponent": self._exponent(0, 1),
            "growth": self._exponent(self._half(), self.full),
            "curvature": (slopes[:, -1] - slopes[:, 0]) * x[-1] / self.largest,
            "largest_step": self.rise[:, 1:-1].max(axis=1),
            "fall": self._fall(),
        }
        return out if self.gain is None else out | {"lost": _best_until(self.gain, -1) - self.gain[:, -1]}

    def flat(self) -> npt.NDArray[np.bool_]:
        """Return whether the effect at scale 1 is within the numeric floor."""
        return np.asarray(self.effect[:, self.full] <= FLOOR_MULTIPLE * self.floor)

    def crashed(self, at: int) -> npt.NDArray[np.bool_]:
        """Return whether the gain at a scale has lost half of the best at or before it."""
        if self.gain is None:
            return np.zeros(len(self.effect), dtype=bool)
        best = _best_until(self.gain, at)
        return np.asarray(best - self.gain[:, at] >= np.maximum(CRASH * best, SMALLEST_CRASH))

    def _overshot(self) -> npt.NDArray[np.bool_]:
        # Full scale is what ships, so a gain lost there counts whether or not a larger scale wins it back.
        return np.asarray(self.crashed(self.full) | self.crashed(-1) | (self._fall() >= FALL))

    def _half(self) -> int:
        return int(np.flatnonzero(self.lam <= 0.5)[-1])  # noqa: PLR2004 (half of the full scale)

    def _exponent(self, i: int, j: int) -> FloatArray:
        ratio = np.maximum(self.effect[:, j], _TINY) / np.maximum(self.effect[:, i], _TINY)
        return np.asarray(np.log(ratio) / np.log(self.lam[j] / self.lam[i]), dtype=np.float64)

    def _is_step(self) -> npt.NDArray[np.bool_]:
        inner, before, after = self.rise[:, 1:-1], self.rise[:, :-2], self.rise[:, 2:]
        return np.asarray((inner >= STEP) & (inner >= _BESIDE * np.maximum(before, after)))

    def _fall(self) -> FloatArray:
        return np.asarray((self.effect.max(axis=1) - self.effect[:, -1]) / self.largest, dtype=np.float64)


def _best_until(curve: FloatArray, at: int) -> FloatArray:
    """Return the best of each curve up to the scale of that index, scale 0 among them."""
    return np.asarray(np.maximum(curve[:, : at % curve.shape[1] + 1].max(axis=1), 0.0), dtype=np.float64)


def _feature(value: float, spread: FloatArray) -> Feature:
    low, high = np.quantile(spread, [0.025, 0.975])
    return Feature(_number(value), _number(low), _number(high))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
