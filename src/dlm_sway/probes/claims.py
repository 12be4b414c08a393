"""Verdicts from numbers: the rules that every probe shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import NullTest
from dlm_sway.probes.inputs import shown
from dlm_sway.stats.paired import Estimate
from dlm_sway.stats.ranks import rank_test

ROWS: Final = 200
"""Rows of items that a result keeps at most."""
Better: TypeAlias = Literal["higher", "lower"] | None
_SHORT: Final = 60


def at_least(estimate: Estimate, minimum: float) -> Verdict:
    """Judge "the effect is at least `minimum`, and surely above zero" by the interval over inputs.

    PASS: estimate >= minimum and the lower bound > 0. FAIL: the whole interval lies under the minimum. Otherwise the
    inputs do not decide, and more of them would.
    """
    if estimate.low is None or estimate.high is None:
        return Verdict.INCONCLUSIVE
    if estimate.estimate >= minimum and estimate.low > 0:
        return Verdict.PASS
    return Verdict.FAIL if estimate.high < minimum else Verdict.INCONCLUSIVE


def interval_of(estimate: Estimate) -> tuple[float, float] | None:
    """Return the interval, or None when there are too few clusters for one."""
    return None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def estimate_evidence(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON values."""
    return {
        "estimate": estimate.estimate,
        "low": estimate.low,
        "high": estimate.high,
        "se": estimate.se,
        "p_sign": estimate.p,
        "method": estimate.method,
        "n_items": estimate.n_items,
        "n_clusters": estimate.n_clusters,
        "n_tokens": estimate.n_tokens,
    }


def null_evidence(test: NullTest, p_adjusted: float) -> dict[str, Any]:
    """Return what a reader needs to re-judge a null test, its draws included."""
    found = rank_test(test.real, test.draws, scale=test.scale)
    return {
        "null": "rotation (N1)",
        "statistic": test.real,
        "null_draws": [float(x) for x in test.draws],
        "null_median": found.null_median,
        "ratio": found.ratio,
        "rank": found.rank,
        "n_draws": found.n_draws,
        "p": found.p,
        "p_adjusted": p_adjusted,
        "z_extrapolated": found.z,
    }


def standing(null: Mapping[str, Any]) -> str:
    """Return where the adapter stands among its nulls, and at what p where the suite's other questions count too."""
    place = f"rank {null['rank']} of {null['n_draws'] + 1}"
    return place if null["p_adjusted"] <= null["p"] else f"{place}, p {null['p_adjusted']:.3g} over all questions"


def too_few_draws(n_draws: int, needed: int, alpha: float) -> str:
    """Return what to say when no rank among this many draws can be significant."""
    return f"{n_draws} draws cannot reach p <= {alpha}; use --draws {needed} or more"


def extremes(
    items: Sequence[TextItem], values: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64], *, n: int = 5
) -> dict[str, list[dict[str, Any]]]:
    """Return the `n` items with the largest and the smallest value per token, with the beginning of their text."""
    rate = values / tokens
    order = np.argsort(rate, kind="stable")
    rows = [
        {"label": items[i].label, "value": float(rate[i]), "tokens": int(tokens[i]), "text": shown(items[i].completion)}
        for i in order
    ]
    return {"largest": rows[::-1][:n], "smallest": rows[:n]}


def power_line(estimate: Estimate, *, minimum: float = 0.0, surely: bool = False) -> float | None:
    """Return the smallest true effect that a claim by these inputs would have shown 4 times in 5.

    Args:
        estimate: with the 95 % interval that decides.
        minimum: the smallest effect worth a pass.
        surely: whether all of the interval has to lie over the minimum, as `surely_over` asks; else the estimate has
            to reach it and the interval to lie over zero, as `at_least` asks.
    """
    from dlm_sway.stats.power import smallest_effect, smallest_shown

    if not estimate.se:
        return None
    df = max(1, estimate.n_clusters - 1)
    if surely:
        return minimum + smallest_effect(estimate.se, alpha=0.025, df=df)
    return smallest_shown(estimate.se, minimum, alpha=0.025, df=df)


@dataclass(frozen=True, slots=True)
class Measured:
    """The items that a claim's number is made of, so that fine-tunes can be compared on the items they share.

    Attributes:
        items: the texts; what they say, and `at` where a piece of them was read, makes an item the same elsewhere.
        total: float64[n], a sum over each item.
        weight: int64[n], what it is divided by, such as tokens; 1 where items count alike.
        unit: of `total / weight`.
        better: which way is better, None where neither is.
        minimum: the smallest difference that matters, or None.
        row: more of what a reader is shown of item i.
    """

    items: Sequence[TextItem]
    total: npt.NDArray[np.float64]
    weight: npt.NDArray[np.int64]
    unit: str
    better: Better
    minimum: float | None
    row: Callable[[int], Mapping[str, Any]] | None = None


def item_records(claims: Mapping[str, Measured], *, seed: int) -> dict[str, Any]:
    """Return the evidence keys `per_item` and `paired`: rows of items by claim, and what is known of each claim.

    Of more than 200 items those are kept whose hash under the seed is smallest, which is a choice at random and the
    same for any fine-tune: two results keep the same items, whichever others they have. Claims share the rows evenly.
    """
    rows: list[dict[str, Any]] = []
    left = ROWS
    by_size = sorted(claims, key=lambda name: len(claims[name].items))
    kept: dict[str, list[dict[str, Any]]] = {}
    for i, name in enumerate(by_size):
        kept[name] = _rows(name, claims[name], most=left // (len(by_size) - i), seed=seed)
        left -= len(kept[name])
    for name in claims:
        rows += kept[name]
    return {"per_item": rows, "paired": {name: _meaning(m) for name, m in claims.items()}}


def _meaning(measured: Measured) -> dict[str, Any]:
    return {
        "unit": measured.unit,
        "better": measured.better,
        "minimum": measured.minimum,
        "n_items": len(measured.items),
    }


def _rows(claim: str, measured: Measured, *, most: int, seed: int) -> list[dict[str, Any]]:
    names = _names(measured.items)
    order = sorted(range(len(names)), key=lambda i: _hash(str(seed), names[i]))
    rate = measured.total / measured.weight
    return [
        {
            "claim": claim,
            "id": names[i],
            "label": shown(measured.items[i].label),
            "cluster": _short(measured.items[i].cluster),
            "value": float(rate[i]),
            "tokens": int(measured.weight[i]),
            **({} if measured.row is None else measured.row(i)),
        }
        for i in sorted(order[:most])
    ]


def _names(items: Sequence[TextItem]) -> list[str]:
    """Return a name for each item by what it says; the second of two equal ones is told from the first."""
    seen: dict[str, int] = {}
    names = []
    for item in items:
        name = _hash(item.prompt, item.completion, repr(item.at))
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


def _short(name: str) -> str:
    """Return a cluster's name in few characters, different for different ones."""
    return name if len(name) <= _SHORT else f"{shown(name, limit=_SHORT - 20)} {_hash(name)}"
