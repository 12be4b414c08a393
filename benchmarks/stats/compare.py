"""Simulate how often `sway compare` calls equal fine-tunes better or worse, and how often it finds a real difference.

Run `python benchmarks/stats/compare.py` (about five minutes on one core); it prints the tables of
docs/statistics/compare.md. Seeds are fixed.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Question, SuiteResult, Verdict
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import ProbeSpec, result_of
from dlm_sway.probes.claims import Measured, item_records
from dlm_sway.stats.difference import lead_by_chance
from dlm_sway.stats.paired import gain
from dlm_sway.suite.compare import compare
from dlm_sway.suite.compare_result import Comparison

RUNS = 1000
MINIMUM = 0.05
HARD = 0.4
"""Spread of an item's value that both fine-tunes share, nat/token."""


def probe(
    name: str, values: np.ndarray[Any, np.dtype[np.float64]], *, texts: str, run: int, interval: bool = False
) -> Any:
    """Return a result of one claim with its items and the interval over them."""
    n = len(values)
    items = [TextItem("", f"{texts}{i}", str(i), str(i)) for i in range(n)]
    ones = np.ones(n, dtype=np.int64)
    ends = None
    if interval:
        found = gain(values, ones, rng=stream(run, "interval", name, texts))
        ends = None if found.low is None or found.high is None else (found.low, found.high)
    claim = Question(verdict=Verdict.PASS, effect=float(values.mean()), unit="nat/token", interval=ends)
    evidence = item_records({"c": Measured(items, values, ones, "nat/token", "higher", MINIMUM)}, seed=0)
    return result_of(ProbeSpec(name=name, kind="k"), {"c": claim}, headline="c", evidence=evidence, score=None)


def compared(n: int, shift: float, run: int, *, own: float, probes: int, paired: bool, candidates: int) -> Comparison:
    """Compare made-up fine-tunes: items share what is hard for all; each adds an error of its own; skewed like KL."""
    results = []
    hard = stream(run, "hard", n).normal(scale=HARD, size=(probes, n))
    for who in range(candidates):
        rng = stream(run, "own", n, str(who), repr(shift))
        errors = own * (rng.standard_exponential((probes, n)) - 1)
        base = hard if paired else rng.normal(scale=HARD, size=(probes, n))
        values = base + errors + (shift if who else 0.0)
        texts = "" if paired else f"{who}-"
        made = tuple(probe(f"p{k}", values[k], texts=texts, run=run, interval=not paired) for k in range(probes))
        results.append(SuiteResult(base="b", adapter=f"c{who}", probes=made))
    return compare(*results, seed=run)


def share(n: int, shift: float, *, own: float = 0.1, probes: int = 1, paired: bool = True, candidates: int = 2) -> str:
    """Return the shares of contrasts called better and worse, and of comparisons with any of them."""
    runs = max(200, RUNS // (probes * (candidates - 1)))
    count: Counter[str] = Counter()
    total = some = 0
    for run in range(runs):
        found = compared(n, shift, run, own=own, probes=probes, paired=paired, candidates=candidates)
        words = [c.outcome for c in found.contrasts]
        count.update(words)
        total += len(words)
        some += any(word in ("better", "worse") for word in words)
    return f"{count['better'] / total:.3f} | {count['worse'] / total:.3f} | {some / runs:.3f}"


def looks(shift: float, *, stop: float) -> str:
    """Return the shares where one reading ends at 32 items if it looks harmless there, the other always at 128."""
    count: Counter[str] = Counter()
    for run in range(RUNS):
        hard = stream(run, "hard").normal(scale=HARD, size=128)
        a, b = (hard + 0.1 * stream(run, "own", str(k)).standard_normal(128) for k in range(2))
        ends = 32 if a[:32].mean() > stop else 128
        made = [
            SuiteResult(base="b", adapter=str(k), probes=(probe("p", v, texts="", run=run),))
            for k, v in enumerate((a[:ends], b + shift))
        ]
        count.update(c.outcome for c in compare(*made, seed=run).contrasts)
    return (
        f"{count['better'] / RUNS:.3f} | {count['worse'] / RUNS:.3f} | {1 - count['no decided difference'] / RUNS:.3f}"
    )


def artefacts(candidates: int, lead: float) -> str:
    """Return how often the best of many is called an artefact of choosing, one of them being ahead by `lead`."""
    called = 0
    for run in range(2000):
        values = stream(run, "best", str(candidates)).normal(size=candidates)
        values[0] += lead
        called += values.max() - values.mean() <= lead_by_chance(candidates, 1.0)
    return f"{called / 2000:.3f}"


def main() -> None:
    """Print the tables."""
    print("| case | better | worse | any |\n|---|---|---|---|")
    for n in (6, 10, 20, 40, 100, 200):
        print(f"| {n} shared items, no difference | {share(n, 0.0)} |", flush=True)
    print(f"| 40 shared items, no difference, 10 probes | {share(40, 0.0, probes=10)} |")
    print(f"| 40 shared items, no difference, 10 probes, 6 candidates | {share(40, 0.0, probes=10, candidates=6)} |")
    for n in (10, 40, 100):
        print(f"| {n} items each, none shared, no difference | {share(n, 0.0, paired=False)} |", flush=True)
    print(f"| one stopped at 32 of 128 when it looked harmless, no difference | {looks(0.0, stop=0.0)} |")
    for own in (0.05, 0.1, 0.2):
        for n in (10, 40, 100, 200):
            print(f"| {n} shared items, minimum apart, own spread {own} | {share(n, MINIMUM, own=own)} |", flush=True)
    for n in (40, 200):
        print(f"| {n} shared items, twice the minimum apart | {share(n, 2 * MINIMUM)} |")
        print(f"| {n} items each, none shared, twice the minimum apart | {share(n, 2 * MINIMUM, paired=False)} |")
        print(f"| {n} shared items, a fifth of the minimum apart | {share(n, MINIMUM / 5)} |", flush=True)
    print("\n| candidates | lead of one, SE | called an artefact |\n|---|---|---|")
    for candidates in (3, 10, 30):
        for lead in (0.0, 2.0, 4.0):
            print(f"| {candidates} | {lead:g} | {artefacts(candidates, lead)} |")


if __name__ == "__main__":
    sys.exit(main())
