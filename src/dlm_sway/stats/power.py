"""What a sample could have decided, and what sample would decide."""

from __future__ import annotations

import math
from typing import Final

from scipy import special

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import count, finite_number, inside_unit, not_negative

MAX_CLUSTERS: Final = 10**9
"""Beyond this many, the answer is "no sensible sample"."""


def smallest_effect(se: float, *, alpha: float = 0.05, power: float = 0.8, df: float = math.inf) -> float:
    """Return the smallest true effect that a one-sided test at `alpha` finds with probability `power`.

    `(t_{1 - alpha} + t_power) * se` (Bloom 1995, minimum detectable effects), in the unit of `se`; normal quantiles
    without `df`.

    Args:
        se: standard error of the estimate, not negative.
        alpha: one-sided level.
        power: probability of finding it.
        df: degrees of freedom of `se`, at least 1.

    Raises:
        BadInputError: `se` is negative or not finite; a level or power outside (0, 1); no degree of freedom.
    """
    se, alpha, power = _power_iv(se, alpha, power, where="smallest_effect", size="se")
    return (_quantile(1 - alpha, df) + _quantile(power, df)) * se


def smallest_shown(
    se: float, minimum: float = 0.0, *, alpha: float = 0.025, power: float = 0.8, df: float = math.inf
) -> float:
    """Return the smallest true effect that is shown to be at least `minimum` with probability `power`.

    Shown is what the rule of "at least" asks: an estimate of `minimum` or more, and a lower bound at `alpha` over 0.
    So the effect has to be found, and to lie far enough over the minimum that its estimate seldom falls under it:
    `max(smallest_effect, minimum + t_power * se)`.

    Args:
        se: standard error of the estimate, not negative.
        minimum: the smallest effect that counts, in the unit of `se`.
        alpha: one-sided level of the bound; half of what an interval leaves out.
        power: probability of showing it.
        df: degrees of freedom of `se`, at least 1.

    Raises:
        BadInputError: as for `smallest_effect`; a minimum that is negative or not finite.
    """
    least = not_negative(minimum, where="smallest_shown: minimum")
    return max(smallest_effect(se, alpha=alpha, power=power, df=df), least + _quantile(power, df) * float(se))


def _quantile(level: float, df: float) -> float:
    if not df >= 1:
        raise BadInputError(f"must be at least 1, got {df}", where="smallest_effect: df")
    return float(special.ndtri(level) if math.isinf(df) else special.stdtrit(df, level))


def clusters_needed(sd_per_cluster: float, effect: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return the number of clusters with which a one-sided t test finds `effect` with probability `power`.

    The smallest C >= 2 with `(t_{1 - alpha, C - 1} + t_{power, C - 1}) * sd / sqrt(C) <= effect`, a close
    approximation of the noncentral t. At `power` 0.5: clusters with which the bound reaches an effect estimated
    right. More than 10^9 is answered as 10^9 + 1.

    Args:
        sd_per_cluster: standard deviation between clusters, not negative; `se * sqrt(C)` of an estimate.
        effect: positive, in the same unit.
        alpha: one-sided level.
        power: probability of finding it, at least 0.5.

    Raises:
        BadInputError: an effect that is not positive, a negative sd, a power under 0.5.
    """
    sd, alpha, power = _power_iv(sd_per_cluster, alpha, power, where="clusters_needed", size="sd_per_cluster")
    effect = _effect_iv(effect, where="clusters_needed")
    if power < 0.5:  # noqa: PLR2004 (below it the second quantile is negative and the search is not monotone)
        raise BadInputError(f"must be at least 0.5, got {power}", where="clusters_needed: power")
    return _search(sd, effect, alpha=alpha, power=power)


def _search(sd: float, effect: float, *, alpha: float, power: float) -> int:
    # t quantiles lie above normal ones, so the normal answer is a lower bound, a few clusters short at most.
    c = _normal_clusters(sd, effect, float(special.ndtri(1 - alpha) + special.ndtri(power)))
    while c <= MAX_CLUSTERS and _t_sum(c - 1, alpha, power) * sd / math.sqrt(c) > effect:
        c += 1
    return c


def _t_sum(df: int, alpha: float, power: float) -> float:
    return float(special.stdtrit(df, power)) - float(special.stdtrit(df, alpha))


def _normal_clusters(sd: float, effect: float, quantiles: float) -> int:
    root = max(0.0, quantiles) * sd / effect
    return max(2, math.ceil(root**2)) if root <= math.sqrt(MAX_CLUSTERS) else MAX_CLUSTERS + 1


def clusters_for_bound(sd_per_cluster: float, gap: float, *, alpha: float, critical: float | None = None) -> int:
    """Return the clusters with which a one-sided bound clears a `gap` between estimate and margin.

    `clusters_needed` at power 0.5, or with `critical` in place of the t quantile; more than 10^9 is answered as
    10^9 + 1.

    Args:
        sd_per_cluster: standard deviation between clusters.
        gap: positive distance between estimate and margin.
        alpha: one-sided level.
        critical: a quantile given from outside.

    Raises:
        BadInputError: as for `clusters_needed`.
    """
    if critical is None:
        return clusters_needed(sd_per_cluster, gap, alpha=alpha, power=0.5)
    sd, _, _ = _power_iv(sd_per_cluster, alpha, 0.5, where="clusters_for_bound", size="sd_per_cluster")
    return _normal_clusters(sd, _effect_iv(gap, where="clusters_for_bound"), critical)


def _power_iv(spread: float, alpha: float, power: float, *, where: str, size: str) -> tuple[float, float, float]:
    return (
        not_negative(spread, where=f"{where}: {size}"),
        inside_unit(alpha, where=f"{where}: alpha"),
        inside_unit(power, where=f"{where}: power"),
    )


def _effect_iv(effect: float, *, where: str) -> float:
    if finite_number(effect, where=f"{where}: effect") <= 0:
        raise BadInputError(f"must be positive, got {effect}", where=f"{where}: effect")
    return float(effect)


def draws_needed(alpha: float, family: int = 1) -> int:
    """Return the fewest null draws m with which the best rank can be significant: `family / (m + 1) <= alpha`.

    `family` counts the hypotheses that a p-value is divided by, as Bonferroni and the first step of
    Benjamini-Hochberg do: 12 probes at 0.05 need 239 draws. maxT compares maxima over all rows draw by draw, so its
    family counts as 1 whatever its size: 19 draws at 0.05.

    Args:
        alpha: level.
        family: number of hypotheses, at least 1.

    Raises:
        BadInputError: a level outside (0, 1), a family under 1.
    """
    level, n = _draws_needed_iv(alpha, family)
    # Rounding must not ask for one draw more: 1 / 0.05 is 20, however the division falls.
    return max(1, math.ceil(n / level * (1 - 1e-12)) - 1)


def require_draws(n_draws: int, *, alpha: float = 0.05) -> None:
    """Return if the best of `n_draws` null draws and the real one can be significant at `alpha`.

    Raises:
        BadInputError: there are too few, whatever is found; or the level is outside (0, 1).
    """
    if n_draws < (fewest := draws_needed(alpha)):
        what = f"{n_draws} draws are too few: p is at least 1/{n_draws + 1}, so nothing could reach {alpha:g}"
        raise BadInputError(what, remedy=f"ask for {fewest} draws or more")


def _draws_needed_iv(alpha: float, family: int) -> tuple[float, int]:
    return inside_unit(alpha, where="draws_needed: alpha"), count(family, where="draws_needed: family", at_least=1)
