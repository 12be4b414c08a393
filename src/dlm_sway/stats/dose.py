"""Which scale of an adapter gains most without harm, and whether the items show that it is better than the full one.

The largest of several noisy means is larger than its true value, so the best of a sweep is not taken at its word: a
scale is named in place of 1 only when a paired comparison of the two, corrected for the number of scales, decides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.stats._inputs import FloatArray, count, finite_number, inside_unit
from dlm_sway.stats._sweep import Sweep, scales_iv, sweep_of
from dlm_sway.stats.equivalence import NonInferiority, non_inferiority
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.shares import Share, share

Reason: TypeAlias = Literal[
    "full scale is as good", "more gain", "less harm", "still rising", "no gain", "never safe", "undecided"
]
MARGIN: Final = 0.05
"""The largest loss on other text that counts as no harm, nat per token."""
WORTH: Final = 0.05
"""The smallest difference of gains worth another scale, nat per token."""
FEWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Items:
    """Texts under each scale.

    Attributes:
        totals: f64[L, n], an item's sum of log-prob gains to the base, nats.
        tokens: i64[n].
        clusters: n names, or None.
    """

    totals: npt.ArrayLike
    tokens: npt.ArrayLike
    clusters: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dose:
    """What the sweep says about the scale.

    Attributes:
        lambdas: f64[L].
        gains: f64[L], nat per token on the text that is meant to gain.
        harms: the loss on other text at each scale, against the margin.
        lam: the scale that is advised: 1 when no other is surely better; None when none can be named.
        best: the best scale by the estimates alone, or None; shown, never advised.
        reason: why.
        gain_change: paired gain at `lam` minus that at 1; None at 1. Its interval is corrected for the sweep.
        harm_change: paired loss at `lam` minus that at 1; None likewise.
        kept: gain at `lam` over that at 1, or None.
        interval: 2.5 % and 97.5 % of the scale that the estimates of resamples name; 0 stands for none. None with too
            few clusters.
        support: share of the resamples by scale.
        n_to_decide: control clusters with which the harm at full scale would be decided, or None.
    """

    lambdas: FloatArray
    gains: FloatArray
    harms: tuple[NonInferiority, ...]
    lam: float | None
    best: float | None
    reason: Reason
    gain_change: Estimate | None
    harm_change: Estimate | None
    kept: Share | None
    interval: tuple[float, float] | None
    support: Mapping[float, float]
    n_to_decide: int | None


def dose(
    lambdas: npt.ArrayLike,
    target: Items,
    control: Items,
    *,
    margin: float = MARGIN,
    worth: float = WORTH,
    alpha: float = 0.05,
    n_resamples: int = 2_000,
    rng: np.random.Generator,
) -> Dose:
    """Return the scale with the best gain whose harm is surely inside the margin.

    Safe scales are found from the smallest up, each by its one-sided bound, and end at the first that is not inside:
    a fixed sequence of tests, so the chance to call any harmful scale safe stays alpha. Where the full scale is safe,
    another one needs a gain that is higher by `worth` and surely higher; where it is not, a smaller one needs surely
    less harm (or a full scale surely over the margin) and a gain that is surely positive.

    Args:
        lambdas: f64[L], rising positive scales with 1 among them.
        target: text that is meant to gain; held-out text where there is some.
        control: other text.
        margin: of harm, nat per token.
        worth: the smallest difference of gains that counts, nat per token.
        alpha: one-sided level.
        n_resamples: for the interval of the scale.
        rng: for bootstraps.

    Raises:
        BadInputError: scales, arrays or names that do not fit, values that are not finite.
    """
    lam, full, by_target, by_control = _dose_iv(
        lambdas, target, control, margin=margin, worth=worth, alpha=alpha, n_resamples=n_resamples
    )
    losses = -np.asarray(control.totals, dtype=np.float64)
    harms = tuple(
        non_inferiority(row, control.tokens, control.clusters, margin=margin, alpha=alpha, rng=rng) for row in losses
    )
    search = _Search(lam, full, target, control, harms, worth=worth, alpha=alpha, rng=rng)
    safe, gains = search.safe(), by_target.ratios
    chosen, reason = search.decide(gains)
    if min(by_target.n_clusters, by_control.n_clusters) < FEWEST:
        chosen, reason = None, "undecided"
    named = _named(gains[None], safe[None], full, worth)[0]
    interval, support = _spread(lam, full, by_target, by_control, harms, worth=worth, n=n_resamples, rng=rng)
    other = chosen is not None and chosen != full
    return Dose(
        lambdas=lam,
        gains=gains,
        harms=harms,
        lam=None if chosen is None else float(lam[chosen]),
        best=float(lam[named]) if named >= 0 else None,
        reason=reason,
        gain_change=search.change(target, chosen) if other and chosen is not None else None,
        harm_change=search.change(search.losses, chosen) if other and chosen is not None else None,
        kept=search.kept(chosen) if other and chosen is not None else None,
        interval=interval,
        support=support,
        n_to_decide=harms[full].n_to_decide if harms[full].decision == "undecided" else None,
    )


def _dose_iv(
    lambdas: npt.ArrayLike,
    target: Items,
    control: Items,
    *,
    margin: float,
    worth: float,
    alpha: float,
    n_resamples: int,
) -> tuple[FloatArray, int, Sweep, Sweep]:
    lam, full = scales_iv(lambdas, where="dose")
    inside_unit(alpha, where="dose: alpha")
    finite_number(margin, where="dose: margin")
    finite_number(worth, where="dose: worth")
    count(n_resamples, where="dose: n_resamples", at_least=1)
    sweeps = [
        sweep_of(i.totals, i.tokens, i.clusters, n_settings=lam.size, where=f"dose: {name}")
        for name, i in (("target", target), ("control", control))
    ]
    return lam, full, sweeps[0], sweeps[1]


class _Search:
    """The comparisons behind one dose."""

    def __init__(
        self,
        lam: FloatArray,
        full: int,
        target: Items,
        control: Items,
        harms: tuple[NonInferiority, ...],
        *,
        worth: float,
        alpha: float,
        rng: np.random.Generator,
    ) -> None:
        self.lam, self.full, self.target, self.harms = lam, full, target, harms
        self.losses = Items(-np.asarray(control.totals, dtype=np.float64), control.tokens, control.clusters)
        self.worth, self.alpha, self.rng = worth, alpha, rng

    def safe(self) -> npt.NDArray[np.bool_]:
        """Return which scales are safe: from the smallest up to the first whose bound is not inside the margin."""
        return np.logical_and.accumulate([h.decision == "within" for h in self.harms])

    def decide(self, gains: FloatArray) -> tuple[int | None, Reason]:
        """Return the index of the advised scale, or None, and why."""
        safe = self.safe()
        order = [int(i) for i in np.argsort(-gains, kind="stable") if safe[i] and gains[i] > 0]
        if not safe.any():
            harmful = all(h.decision == "outside" for h in self.harms)
            return None, "never safe" if harmful else "undecided"
        if not order:
            return None, self._without_gain(safe)
        if safe[self.full]:
            return self._beside_safe_full(order, gains, safe)
        for i in order:
            if self._surely_gains(i) and self._surely_less_harm(i):
                return i, "less harm"
        return None, "undecided"

    def change(self, items: Items, i: int) -> Estimate:
        """Return what scale i has beyond the full one, by item; the interval is corrected for the number of scales."""
        totals = np.asarray(items.totals, dtype=np.float64)
        return self._gain(totals[i] - totals[self.full], items, 2 * self.alpha / (self.lam.size - 1))

    def kept(self, i: int) -> Share:
        """Return the gain at scale i over that at the full one."""
        totals = np.asarray(self.target.totals, dtype=np.float64)
        return share(totals[i], totals[self.full], self.target.clusters)

    def _beside_safe_full(
        self, order: Sequence[int], gains: FloatArray, safe: npt.NDArray[np.bool_]
    ) -> tuple[int | None, Reason]:
        for i in order:
            if i == self.full or gains[i] - gains[self.full] < self.worth:
                break
            low = self.change(self.target, i).low
            if low is not None and low > 0:
                return i, "more gain" if i < self.full else "still rising"
        if self.full not in order:
            return None, self._without_gain(safe)
        return self.full, "full scale is as good"

    def _without_gain(self, safe: npt.NDArray[np.bool_]) -> Reason:
        rows = np.asarray(self.target.totals, dtype=np.float64)[safe]
        highs = [self._gain(row, self.target, 2 * self.alpha).high for row in rows]
        return "no gain" if all(h is not None and h < self.worth for h in highs) else "undecided"

    def _surely_gains(self, i: int) -> bool:
        row = np.asarray(self.target.totals, dtype=np.float64)[i]
        low = self._gain(row, self.target, 2 * self.alpha / (self.lam.size - 1)).low
        return low is not None and low > 0

    def _surely_less_harm(self, i: int) -> bool:
        if self.harms[self.full].decision == "outside":
            return True
        high = self.change(self.losses, i).high
        return high is not None and high < 0

    def _gain(self, totals: FloatArray, items: Items, level: float) -> Estimate:
        return gain(totals, items.tokens, items.clusters, confidence=1 - level, rng=self.rng)


def _spread(
    lam: FloatArray,
    full: int,
    target: Sweep,
    control: Sweep,
    harms: tuple[NonInferiority, ...],
    *,
    worth: float,
    n: int,
    rng: np.random.Generator,
) -> tuple[tuple[float, float] | None, dict[float, float]]:
    """Return the interval of the scale that estimates alone would name, and the share of resamples by scale."""
    if min(target.n_clusters, control.n_clusters) < FEWEST:
        return None, {}
    reach = np.array([np.inf if h.upper is None else h.upper - h.estimate for h in harms])
    losses = -control.resampled(n, rng=rng)
    safe = np.logical_and.accumulate(losses + reach < harms[0].margin, axis=1)  # [B, L]
    named = _named(target.resampled(n, rng=rng), safe, full, worth)
    scales = np.sort(np.where(named >= 0, lam[named], 0.0))
    low, high = np.quantile(scales, [0.025, 0.975], method="inverted_cdf")
    values, counts = np.unique(scales, return_counts=True)
    return (float(low), float(high)), {float(v): float(k / n) for v, k in zip(values, counts, strict=True)}


def _named(gains: FloatArray, safe: npt.NDArray[np.bool_], full: int, worth: float) -> npt.NDArray[np.int64]:
    """Return for each row of f64[B, L] the index of the best safe scale, -1 where none gains; a tie goes to 1."""
    open_to = np.where(safe & (gains > 0), gains, -np.inf)
    best = np.argmax(open_to, axis=1)
    top = open_to[np.arange(len(gains)), best]
    as_good = np.isfinite(open_to[:, full]) & (open_to[:, full] > top - worth)
    return np.where(np.isfinite(top), np.where(as_good, full, best), -1).astype(np.int64)
