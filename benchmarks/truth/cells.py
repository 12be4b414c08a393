"""Right, wrong or inconclusive: what sway said of a specimen against what is true of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from scipy.stats import binomtest

QUESTIONS: Final = ("sound", "applied", "learned", "on_target", "generalises", "no_harm")
MINIMUM = 0.05  # nat/token: the declared minimum of a gain, and the margin of a loss
UNSURE = 0.01  # nat/token: a truth this near to its limit is not counted
_BROKEN = frozenset({"no-op", "renamed keys", "NaN"})
_UNTRAINED = frozenset({"noise"})


def truth(made: str, measured: Mapping[str, Any] | None) -> dict[str, bool]:
    """Return what is true of a specimen, by question; a question whose truth is not known is left out.

    The label settles `sound`, `applied` and `learned`; plain log-probs settle the others.
    """
    if made in _BROKEN:
        return {"sound": False}
    known: dict[str, bool | None] = {"learned": made not in _UNTRAINED}
    if made == "mis-scaled":
        known["sound"] = False
    elif made not in _UNTRAINED | {"collapsed"}:  # at the scale of training: noise has none, and here none was sane
        known["sound"] = True
    if made not in ("two steps", "collapsed"):
        known["applied"] = True
    if made == "collapsed":
        del known["learned"]  # weights blown up by a rate a hundred times too high may be of no direction at all
    if measured is not None:
        neutral = measured["neutral"]
        for question, part in (("on_target", "target"), ("generalises", "held_out")):
            gain = measured[part]
            known[question] = _sure(min(gain, gain - neutral) - MINIMUM)
        known["no_harm"] = _sure(min(measured["neutral"], *measured["registers"].values()) + MINIMUM)
    return {k: v for k, v in known.items() if v is not None}


def _sure(distance: float) -> bool | None:
    return None if abs(distance) < UNSURE else distance > 0


def cell(verdict: str, is_true: bool) -> str:
    """Return `right`, `wrong` or `inconclusive`."""
    if verdict in ("inconclusive", "skip"):
        return "inconclusive"
    if verdict == "error":
        return "wrong"
    return "right" if (verdict == "pass") == is_true else "wrong"


def confusion(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Return counts of right, wrong and inconclusive by how an adapter was made and by question."""
    table: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for row in rows:
        for question, is_true in truth(row["made"], row["measured"]).items():
            table[row["made"]][question][cell(row["verdicts"][question], is_true)] += 1
    return {made: {q: dict(c) for q, c in cells.items()} for made, cells in table.items()}


def share(count: int, of: int) -> dict[str, float | int]:
    """Return a share with its exact 95 % binomial interval (Clopper and Pearson 1934)."""
    if of == 0:
        return {"count": 0, "of": 0}
    interval = binomtest(count, of).proportion_ci(0.95, "exact")
    return {"count": count, "of": of, "share": count / of, "low": interval.low, "high": interval.high}


def headline(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the shares that the project is judged by."""
    counts: Counter[str] = Counter()
    for row in rows:
        for question, is_true in truth(row["made"], row["measured"]).items():
            counts[cell(row["verdicts"][question], is_true)] += 1
    decided = counts["right"] + counts["wrong"]

    def passed(question: str, *made: str, only_false: bool = False) -> dict[str, float | int]:
        of = [r for r in rows if r["made"] in made]
        if only_false:
            of = [r for r in of if truth(r["made"], r["measured"]).get(question) is False]
        return share(sum(r["verdicts"][question] == "pass" for r in of), len(of))

    return {
        "decided_right": share(counts["right"], decided),
        "inconclusive": share(counts["inconclusive"], decided + counts["inconclusive"]),
        "noise_passes_learned": passed("learned", "noise"),
        "off_target_passes_on_target": passed("on_target", *OFF_TARGET, only_false=True),
        "untrue_on_target_passes": passed("on_target", *{r["made"] for r in rows}, only_false=True),
        "healthy_passes_learned": passed("learned", "healthy"),
        "healthy_passes_on_target": passed("on_target", "healthy"),
        "broken_passes": share(
            sum(r["verdict"] == "pass" for r in rows if r["made"] in FAULTS), sum(r["made"] in FAULTS for r in rows)
        ),
    }


OFF_TARGET: Final = ("wrong document", "far document", "shuffled")
FAULTS: Final = frozenset({"reciting", "collapsed", "mis-scaled", "renamed keys", "NaN", "no-op"})
