"""The comparisons of one scale of an adapter with the full one, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.stats._inputs import FloatArray
from dlm_sway.stats.equivalence import NonInferiority
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.power import clusters_for_bound
from dlm_sway.stats.shares import Share, share

Reason: TypeAlias = Literal[
    "full scale is as good", "more gain", "less harm", "still rising", "no gain", "never safe", "undecided"
]
_SENSIBLE: Final = 100_000
"""Most texts that anybody could be told to collect."""


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


@dataclass(frozen=True, slots=True)
class Rival:
    """A safe scale that may be better than the full one by what counts, and may not.

    Attributes:
        lam: the scale; of several the one that looks best.
        change: paired gain at `lam` minus that at 1. Its interval is corrected for the sweep.
        n_to_decide: clusters of target text that would tell whether the full scale is as good, or None.
    """

    lam: float
    change: Estimate
    n_to_decide: int | None


class Search:
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
        self._more: dict[tuple[str, int], Estimate] = {}  # what decides is what is shown: bootstrapped once

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

    def more_gain(self, i: int) -> Estimate:
        """Return the gain of scale i beyond that of the full one; its interval pays for the number of scales."""
        return self._change("gain", self.target, i)

    def more_harm(self, i: int) -> Estimate:
        """Return the loss at scale i beyond that at the full one; likewise."""
        return self._change("loss", self.losses, i)

    def rival(self, gains: FloatArray) -> Rival | None:
        """Return the best of the safe scales that may be better than the full one by `worth`, or None."""
        rivals = self._rivals()
        if not rivals or gains[self.full] <= 0:
            return None
        best = max(rivals, key=lambda i: gains[i])
        # The best one may be shown to be better; where it looks no better, all must be shown not to be.
        better = self.more_gain(best).estimate >= self.worth
        needed = [self._texts_to_decide(i) for i in ([best] if better else rivals)]
        known = [n for n in needed if n is not None]
        return Rival(float(self.lam[best]), self.more_gain(best), max(known) if len(known) == len(needed) else None)

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
            low = self.more_gain(i).low
            if low is not None and low > 0:
                return i, "more gain" if i < self.full else "still rising"
        if self.full not in order:
            return None, self._without_gain(safe)
        return (None, "undecided") if self._rivals() else (self.full, "full scale is as good")

    def _rivals(self) -> list[int]:
        """Return the safe scales that are not surely under `worth` more gain than the full one."""
        others = [int(i) for i in np.flatnonzero(self.safe()) if i != self.full]
        highs = [(i, self.more_gain(i).high) for i in others]
        return [i for i, high in highs if high is None or high >= self.worth]

    def _texts_to_decide(self, i: int) -> int | None:
        """Return the clusters that would tell whether scale i is better or not, if it is as it looks."""
        change = self.more_gain(i)
        gap = change.estimate if change.estimate >= self.worth else self.worth - change.estimate
        if not change.se or gap <= 0:
            return None
        sd = change.se * change.n_clusters**0.5
        needed = clusters_for_bound(sd, gap, alpha=self.alpha / (self.lam.size - 1))
        return None if needed > _SENSIBLE else max(needed, change.n_clusters + 1)

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
        high = self.more_harm(i).high
        return high is not None and high < 0

    def _change(self, of: str, items: Items, i: int) -> Estimate:
        if (of, i) not in self._more:
            totals = np.asarray(items.totals, dtype=np.float64)
            more = totals[i] - totals[self.full]
            self._more[of, i] = self._gain(more, items, 2 * self.alpha / (self.lam.size - 1))
        return self._more[of, i]

    def _gain(self, totals: FloatArray, items: Items, level: float) -> Estimate:
        return gain(totals, items.tokens, items.clusters, confidence=1 - level, rng=self.rng)
