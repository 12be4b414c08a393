"""Which scale of an adapter gains most without harm, and whether the items show that it is better than the full one.

The largest of several noisy means is larger than its true value, so the best of a sweep is not taken at its word: a
scale is named in place of 1 only when a paired comparison of the two, corrected for the number of scales, decides it.
Nor is a comparison that decides nothing taken for sameness: 1 is as good only where every other scale is surely no
better by what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.stats._dose import Items, Reason, Rival, Search
from dlm_sway.stats._inputs import FloatArray, count, finite_number, inside_unit
from dlm_sway.stats._sweep import Sweep, scales_iv, sweep_of
from dlm_sway.stats.equivalence import NonInferiority, non_inferiority
from dlm_sway.stats.paired import Estimate
from dlm_sway.stats.shares import Share

__all__ = ["FEWEST", "MARGIN", "WORTH", "Dose", "Items", "Reason", "Rival", "dose"]

MARGIN: Final = 0.05
"""The largest loss on other text that counts as no harm, nat per token."""
WORTH: Final = 0.05
"""The smallest difference of gains worth another scale, nat per token."""
FEWEST: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Dose:
    """What the sweep says about the scale.

    Attributes:
        lambdas: f64[L].
        gains: f64[L], nat per token on the text that is meant to gain.
        harms: the loss on other text at each scale, against the margin.
        lam: the scale that is advised: 1 when every other safe one is surely no better; None when none can be named.
        best: the best scale by the estimates alone, or None; shown, never advised.
        reason: why.
        gain_change: paired gain at `lam` minus that at 1; None at 1. Its interval is corrected for the sweep.
        harm_change: paired loss at `lam` minus that at 1; None likewise.
        kept: gain at `lam` over that at 1, or None.
        interval: 2.5 % and 97.5 % of the scale that the estimates of resamples name; 0 stands for none. None with too
            few clusters.
        support: share of the resamples by scale.
        n_to_decide: control clusters with which the harm at full scale would be decided, or None.
        rival: what keeps a safe full scale from being as good; None where nothing does.
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
    rival: Rival | None


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
    another one needs a gain that is higher by `worth` and surely higher, and the full one is as good when every other
    safe one is surely not higher by `worth`; between, nothing is decided. Where it is not safe, a smaller one needs
    surely less harm (or a full scale surely over the margin) and a gain that is surely positive.

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
    search = Search(lam, full, target, control, harms, worth=worth, alpha=alpha, rng=rng)
    safe, gains = search.safe(), by_target.ratios
    chosen, reason = search.decide(gains)
    few = min(by_target.n_clusters, by_control.n_clusters) < FEWEST
    if few:
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
        gain_change=search.more_gain(chosen) if other and chosen is not None else None,
        harm_change=search.more_harm(chosen) if other and chosen is not None else None,
        kept=search.kept(chosen) if other and chosen is not None else None,
        interval=interval,
        support=support,
        n_to_decide=harms[full].n_to_decide if harms[full].decision == "undecided" else None,
        rival=search.rival(gains) if reason == "undecided" and safe[full] and not few else None,
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
