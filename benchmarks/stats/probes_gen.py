"""Simulate how often the probes that generate pass at the edge of their claims, and how often they find an effect.

Run `python benchmarks/stats/probes_gen.py` (under a minute on one core); it prints the tables of
docs/statistics/probes-gen.md. Seeds are fixed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import Written
from dlm_sway.probes import adapter_revert, tool_use_fidelity
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.beyond import surely_over
from dlm_sway.probes.style_features import NAMES
from dlm_sway.probes.style_shift import shift
from dlm_sway.stats.paired import gain

RUNS = 200
CALL = '<tool_call>{"name": "ring", "arguments": {}}</tool_call>'


def written(ask: Any, base: list[str], finetuned: list[str]) -> Written:
    """Return an answer made of these texts."""
    shape = (2, len(base))
    return Written(ask, (tuple(base), tuple(finetuned)), np.ones(shape, dtype=np.int64), np.ones(shape, dtype=bool))


def coordinates(texts: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Embed a text that is itself a vector."""
    return np.array([[float(x) for x in text.split()] for text in texts])


def revert(n: int, effect: float, run: int) -> Verdict:
    """Judge one made-up data set of `n` cases with the given mean effect; spread 0.3 between cases."""
    rng = stream(run, "revert", n, repr(effect))
    cases = [{"prompt": f"{i}", "gold": "1 0 0", "paraphrases": [f"{i}a", f"{i}b"]} for i in range(n)]
    probe, spec = build_probe({"name": "x", "kind": "adapter_revert", "cases": cases})
    (ask,) = probe.plan(spec, Env(), ())
    gaps = np.clip(effect + 0.3 * rng.standard_normal(n), -0.9, 0.9)
    rows = [(0.3 + g / 2, 0.3 - g / 2) for g in gaps for _ in range(3)]
    texts = [f"{a!r} {b!r} {float(np.sqrt(1 - a * a - b * b))!r}" for a, b in ((float(a), float(b)) for a, b in rows)]
    found = probe.measure(spec, Env(seed=run), ((written(ask, ["0 1 0"] * len(texts), texts),),))
    return probe.judge(spec, Env(seed=run), found, {}).verdict


def tools(n: int, base: float, finetuned: float, run: int, *, claim: str = "valid") -> Verdict:
    """Judge one made-up data set of `n` requests, valid or in the set with the given probabilities."""
    rng = stream(run, "tools", claim, n, repr(base), repr(finetuned))
    tool, bad = {"name": "ring"}, CALL.replace("ring", "drum") if claim == "in_set" else "no call"
    cases = [{"prompt": f"{i}"} for i in range(n)]
    probe, spec = build_probe({"name": "x", "kind": "tool_use_fidelity", "cases": cases, "tools": [tool]})
    (ask,) = probe.plan(spec, Env(chat=True), ())
    texts = [[CALL if ok else bad for ok in rng.random(n) < rate] for rate in (base, finetuned)]
    found = probe.measure(spec, Env(chat=True), ((written(ask, *texts),),))
    claims = probe.judge(spec, Env(chat=True), found, {}).evidence["claims"]
    return Verdict(claims[claim]["verdict"])


def style(n: int, along: float, run: int) -> Verdict:
    """Judge one made-up data set of `n` prompts whose fine-tune went `along` of the way; Gaussian features."""
    rng, k = stream(run, "style", n, repr(along)), len(NAMES)
    base, finetuned = rng.normal(0, 0.6, (n, k)), rng.normal(along / 2, 0.6, (n, k))
    reference, spread = rng.normal(0.5, 1, (40, k)), rng.normal(0, 1, (3 * n, k))
    found = shift(reference, base, finetuned, smallest_sd=np.full(k, 0.1), spread=spread)
    if found.along is None:
        return Verdict.INCONCLUSIVE
    return surely_over(gain(found.along, np.ones(n, dtype=np.int64), rng=rng), 0.25)


def row(name: str, judged: list[Verdict]) -> None:
    count = Counter(judged)
    shares = (f"{count[v] / len(judged):.3f}" for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE))
    print(f"| {name} | {' | '.join(shares)} |")


def main() -> None:
    adapter_revert.open_embedder = lambda _: coordinates
    assert tool_use_fidelity.ToolUseFidelity.kind == "tool_use_fidelity"
    print("| case | PASS | FAIL | INCONCLUSIVE |\n|---|---|---|---|")
    for n in (8, 15, 30):
        for effect in (0.05, 0.15, 0.25):
            row(f"adapter_revert, {n} cases, effect {effect}", [revert(n, effect, r) for r in range(RUNS)])
    for n, base, finetuned in ((100, 0.9, 0.85), (300, 0.9, 0.85), (100, 0.9, 0.9), (300, 0.9, 0.9), (300, 0.9, 0.75)):
        row(f"valid, {n} requests, {base:.0%} to {finetuned:.0%}", [tools(n, base, finetuned, r) for r in range(RUNS)])
    for n, stray in ((50, 0.1), (200, 0.1), (50, 0.02), (200, 0.02), (200, 0.2)):
        judged = [tools(n, 1.0, 1 - stray, r, claim="in_set") for r in range(RUNS)]
        row(f"in_set, {n} replies, {stray:.0%} stray", judged)
    for n in (10, 20, 32):
        for along in (0.0, 0.25, 0.5, 0.75):
            row(f"style_fingerprint, {n} prompts, {along:.0%} of the way", [style(n, along, r) for r in range(RUNS)])


if __name__ == "__main__":
    main()
