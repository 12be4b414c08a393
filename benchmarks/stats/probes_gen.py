"""Simulate how often the probes that generate pass at the edge of their claims, and how often they find an effect.

Run `python benchmarks/stats/probes_gen.py` (under two minutes on one core); it prints the tables of
docs/statistics/probes-gen.md. Seeds are fixed.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import Written
from dlm_sway.probes import adapter_revert, tool_use_fidelity
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.style_features import NAMES, measurer, resolution, windows
from dlm_sway.probes.style_shift import differ, shift
from dlm_sway.stats.jackknife import JackknifedRatio

RUNS = 200
STYLE_RUNS = 400
WORDS, ALPHA = 40, 0.05
Features: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
WAYS = (("dialogue", "encyclopaedic"), ("prose", "dialogue"), ("lists", "prose"))
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


def tools(n: int, base: float, finetuned: float, run: int, *, claim: str = "valid", wordings: int = 1) -> Verdict:
    """Judge one made-up data set of `n` requests, valid or in the set with the given probabilities.

    Each stands in so many wordings, a cluster, and all of them end alike.
    """
    rng = stream(run, "tools", claim, n, repr(base), repr(finetuned))
    tool, bad = {"name": "ring"}, CALL.replace("ring", "drum") if claim == "in_set" else "no call"
    cases = [{"prompt": f"{i} {j}", "cluster": f"{i}"} for i in range(n) for j in range(wordings)]
    probe, spec = build_probe({"name": "x", "kind": "tool_use_fidelity", "cases": cases, "tools": [tool]})
    (ask,) = probe.plan(spec, Env(chat=True), ())
    texts = [[CALL if ok else bad for ok in np.repeat(rng.random(n) < rate, wordings)] for rate in (base, finetuned)]
    found = probe.measure(spec, Env(chat=True), ((written(ask, *texts),),))
    claims = probe.judge(spec, Env(chat=True), found, {}).evidence["claims"]
    return Verdict(claims[claim]["verdict"])


def gaussian(n: int, pieces: int, along: float, run: int) -> JackknifedRatio | None:
    """Return the share of the way in one made-up data set whose fine-tune went `along` of it; Gaussian features.

    Of `n` prompts and so many pieces of the reference, half a standard deviation away in each feature.
    """
    rng, k = stream(run, "style", n, pieces, repr(along)), len(NAMES)
    base, finetuned = rng.normal(0, 0.6, (n, k)), rng.normal(along / 2, 0.6, (n, k))
    reference, spread = rng.normal(0.5, 1, (pieces, k)), rng.normal(0, 1, (3 * n, k))
    return shift(reference, base, finetuned, smallest_sd=np.full(k, 0.1), spread=spread).share


def mixed(way: tuple[str, str], pieces: int, along: float, run: int) -> JackknifedRatio | None:
    """Return the same for real text: the reference is of one register of the control corpus, the base of another.

    The fine-tune writes a piece of the reference's register with the probability `along`, so that it went that share
    of the way; 32 prompts of three pieces.
    """
    rng, k = stream(run, "mixed", *way, pieces, repr(along)), len(NAMES)
    there, here = (register(name) for name in way)
    reference = there[rng.integers(len(there), size=pieces)]
    base, kept = (here[rng.integers(len(here), size=(32, 3))] for _ in range(2))
    taken = there[rng.integers(len(there), size=(32, 3))]
    finetuned = np.where(rng.random((32, 3, 1)) < along, taken, kept)
    smallest, spread = resolution(WORDS, readability=False), base.reshape(-1, k)
    if differ(reference, base[:, 0], smallest_sd=smallest, rng=rng, n_labellings=199) > ALPHA:
        return None
    return shift(reference, base.mean(axis=1), finetuned.mean(axis=1), smallest_sd=smallest, spread=spread).share


@cache
def register(name: str) -> Features:
    """Return the features of all pieces of a register."""
    texts = [p.text for p in control_passages() if p.register == name]
    return measurer(readability=False)([piece for text in texts for piece in windows(text, WORDS)])


def style_row(name: str, along: float, found: list[JackknifedRatio | None]) -> None:
    """Print how often the claim passes and fails, and the interval has the truth, of those that are judged."""
    shares = [s for s in found if s is not None]
    bounded = [(s.low, s.high) for s in shares if s.low is not None and s.high is not None]
    count = [
        sum(low > 0.25 for low, _ in bounded),
        sum(high < 0.25 for _, high in bounded),
        sum(low <= along <= high for low, high in bounded),
        sum(low > along for low, _ in bounded),
        sum(high < along for _, high in bounded),
        len(shares) - len(bounded),
    ]
    rates = " | ".join(f"{k / max(1, len(shares)):.3f}" for k in count)
    print(f"| {name}, {along:.0%} of the way | {len(shares) / len(found):.2f} | {rates} |", flush=True)


def row(name: str, judged: list[Verdict]) -> None:
    count = Counter(judged)
    shares = (f"{count[v] / len(judged):.3f}" for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE))
    print(f"| {name} | {' | '.join(shares)} |")


def tool_rows() -> None:
    """Print how often requests with tools pass and fail, also where they form clusters."""
    for n, base, finetuned in ((100, 0.9, 0.85), (300, 0.9, 0.85), (100, 0.9, 0.9), (300, 0.9, 0.9), (300, 0.9, 0.75)):
        row(f"valid, {n} requests, {base:.0%} to {finetuned:.0%}", [tools(n, base, finetuned, r) for r in range(RUNS)])
    for n, stray in ((50, 0.1), (200, 0.1), (50, 0.02), (200, 0.02), (200, 0.2)):
        judged = [tools(n, 1.0, 1 - stray, r, claim="in_set") for r in range(RUNS)]
        row(f"in_set, {n} replies, {stray:.0%} stray", judged)
    for claim, n, ok in (("valid", 60, 0.95), ("valid", 60, 1.0), ("in_set", 30, 0.9), ("in_set", 30, 1.0)):
        judged = [tools(n, 1.0, ok, r, claim=claim, wordings=5) for r in range(RUNS)]
        row(f"{claim}, {n} requests in 5 wordings each, {1 - ok:.0%} of them lost or stray", judged)


def main() -> None:
    adapter_revert.open_embedder = lambda _: coordinates
    assert tool_use_fidelity.ToolUseFidelity.kind == "tool_use_fidelity"
    print("| case | PASS | FAIL | INCONCLUSIVE |\n|---|---|---|---|")
    for n in (8, 15, 30):
        for effect in (0.05, 0.15, 0.25):
            row(f"adapter_revert, {n} cases, effect {effect}", [revert(n, effect, r) for r in range(RUNS)])
    tool_rows()
    print("\n| style_fingerprint | judged | PASS | FAIL | interval has it | is above | is below | unbounded |")
    print(f"|{'---|' * 8}")
    for n, pieces in ((10, 40), (20, 40), (32, 5), (32, 10), (32, 15), (32, 40)):
        for along in (0.0, 0.25, 0.5, 1.0):
            found = [gaussian(n, pieces, along, r) for r in range(STYLE_RUNS)]
            style_row(f"{n} prompts, {pieces} pieces", along, found)
    for way in WAYS:
        for pieces in (5, 10, 15, 40):
            for along in (0.25, 1.0):
                found = [mixed(way, pieces, along, r) for r in range(STYLE_RUNS)]
                style_row(f"{way[1]} to {way[0]}, {pieces} pieces", along, found)


if __name__ == "__main__":
    main()
