"""Simulate how often the probes of calibration and recital err at the edge of their claims, and what they find.

Run `python benchmarks/stats/probes_calibration.py` (a few minutes on one core); it prints the tables of
docs/statistics/probes-calibration.md. Seeds are fixed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import special, stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.canaries import Ranked, judge_canaries
from dlm_sway.stats.auc import auc
from dlm_sway.stats.ranks import rank_test

RUNS = 400
SHOWN = (Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.INCONCLUSIVE)
SPREAD = 0.08  # nat/token between passages of 64 tokens: trained adapters of the truth benchmark have 0.06 to 0.1
F64 = np.ndarray[Any, np.dtype[np.float64]]


# ---- external_perplexity: harm to one register --------------------------------------------------------------------


def control(one: float, rest: float, run: int, spread: float = SPREAD, **options: Any) -> tuple[ProbeResult, int]:
    """Judge the shipped corpus where a register loses `one` nat/token and the others `rest`; with the passages read."""
    rng, tokens = stream(run, "control", repr(one), repr(rest)), 64
    probe, spec = build_probe({"name": "x", "kind": "external_perplexity", "null_tokens": 0, **options})
    env, seen = Env(seed=run), ()
    while asks := probe.plan(spec, env, seen):
        items = asks[0].items
        loss = rng.normal(np.where([i.stratum == "lists" for i in items], one, rest), spread)
        offsets = np.arange(len(items) + 1) * tokens
        gain = np.repeat(-loss, tokens)
        seen = (*seen, (Scores(items, (FINETUNED,), offsets, {"gain": gain[None]}, np.zeros_like(gain)),))
    read = sum(len(scores.items) for (scores,) in seen)
    return probe.judge(spec, env, probe.measure(spec, env, seen), {}), read


def control_rows(runs: int) -> None:
    print(
        "| one register loses | the others | PASS | WARN | FAIL | INCONCLUSIVE | average alone passes | passages read |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for rest in (0.0, 0.02):
        for one in (rest, 0.03, 0.05, 0.06, 0.08, 0.12, 0.2):
            found = [control(one, rest, r) for r in range(runs)]
            alone = np.mean([r.evidence["loss"]["upper"] < r.evidence["margin"] for r, _ in found])
            read = np.mean([n for _, n in found])
            print(f"| {one} | {rest} | {shares(r.verdict for r, _ in found)} | {alone:.3f} | {read:.0f} |", flush=True)


def quick_rows(runs: int) -> None:
    """The same as `sway check --quick` asks: one look at 32 passages, of which it reads half as much."""
    print("| one register loses | the others | PASS | WARN | FAIL | INCONCLUSIVE |")
    print("|---|---|---|---|---|---|")
    for one, rest in ((0.0, 0.0), (0.02, 0.02), (0.05, 0.05), (0.08, 0.08), (0.12, 0.12), (0.12, 0.0), (0.2, 0.0)):
        found = [control(one, rest, r, spread=SPREAD * 2**0.5, max_passages=32, read_on=False)[0] for r in range(runs)]
        print(f"| {one} | {rest} | {shares(r.verdict for r in found)} |", flush=True)


# ---- calibration_drift -----------------------------------------------------------------------------------------------


def base_grid(n: int, rng: np.random.Generator) -> F64:
    """Options' log-probs of a base that is right in about three facts of four, the right option first."""
    grid = rng.normal(-8, 1, (n, 4))
    grid[:, 0] += rng.normal(1.8, 1.5, n)
    return grid


def shaken(grid: F64, shift: float, share: float, rng: np.random.Generator, every: int = 1) -> F64:
    """The same facts after a fine-tune: noise in every option, the right one worse by `shift` in a share of them.

    Only the first of `every` facts can be in that share, such as those of one category of eight.
    """
    out = grid + rng.normal(0, 0.15, grid.shape)
    out[:, 0] -= shift * (rng.random(len(grid)) < share) * (np.arange(len(grid)) % every == 0)
    return out


def losses(grid: F64) -> F64:
    return np.asarray(special.logsumexp(grid, axis=1) - grid[:, 0])


def true_loss(shift: float, share: float) -> tuple[float, float]:
    """Mean loss over 50,000 facts, and that on what the base knew."""
    rng = stream(0, "population")
    before = base_grid(50_000, rng)
    change = losses(shaken(before, shift, share, rng)) - losses(before)
    known = np.maximum(0, (np.exp(-losses(before)) - 0.25) / 0.75)
    return float(change.mean()), float((change * known).sum() / known.sum())


def shift_for(loss: float, share: float) -> float:
    """Return the shift at which the larger of the two true losses is `loss`: no claim is past its edge."""
    low, high = -1.0, 20.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if max(true_loss(middle, share)) < loss else (low, middle)
    return low


def drift(n: int, shift: float, share: float, run: int, every: int = 1) -> ProbeResult:
    """Judge one made-up pack of `n` facts in eight categories; with `every` 8, only the first of them loses."""
    rng = stream(run, "drift", n, repr(shift), repr(share))
    base = base_grid(n, rng)
    finetuned = shaken(base, shift, share, rng, every)
    facts = [{"prompt": f"{i}", "options": list("abcd"), "answer": "a", "category": f"{i % 8}"} for i in range(n)]
    probe, spec = build_probe({"name": "x", "kind": "calibration_drift", "facts": facts})
    env, seen = Env(seed=run), ()
    while asks := probe.plan(spec, env, seen):
        part = [int(item.prompt) for item in asks[0].items[::4]]  # the probe has an order of its own
        gain = (finetuned - base)[part].ravel()[None]
        offsets = np.arange(len(asks[0].items) + 1)
        scores = Scores(asks[0].items, (FINETUNED,), offsets, {"gain": gain}, base[part].ravel())
        seen = (*seen, (scores,))
    return probe.judge(spec, env, probe.measure(spec, env, seen), {})


def category_rows(runs: int) -> None:
    print("| a category loses | PASS | WARN | FAIL | INCONCLUSIVE | facts read |")
    print("|---|---|---|---|---|---|")
    for loss in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3):
        shift = shift_for(loss, 1.0) if loss else 0.0
        found = [drift(320, shift, 1.0, r, every=8) for r in range(runs)]
        read = np.mean([r.evidence["counts"]["n_items"] for r in found])
        print(f"| {loss} | {shares(r.verdict for r in found)} | {read:.0f} |", flush=True)


def drift_rows(runs: int) -> None:
    print(
        "| facts | true loss | in | PASS | WARN | FAIL | INCONCLUSIVE | facts read |\n|---|---|---|---|---|---|---|---|"
    )
    for share, where in ((1.0, "every fact"), (0.05, "1 fact in 20")):
        shifts = {"none": 0.0} | {f"{loss:.2f}": shift_for(loss, share) for loss in (0.05, 0.1, 0.2)}
        for n in (30, 80, 320):
            for name, shift in shifts.items():
                results = [drift(n, shift if name != "none" else 0.0, share, r) for r in range(runs)]
                read = np.mean([r.evidence["counts"]["n_items"] for r in results])
                print(f"| {n} | {name} | {where} | {shares(r.verdict for r in results)} | {read:.0f} |", flush=True)


# ---- leakage ---------------------------------------------------------------------------------------------------------


def leak(n: int, base: float, rate: float, run: int) -> ProbeResult:
    """Judge `n` spans: a share `base` comes out of both models, and `rate` more of the fine-tune."""
    rng = stream(run, "leak", n, repr(base), repr(rate))
    u = rng.random(n)
    both, new = u < base, (u >= base) & (u < base + rate)
    out = {f"{i}": (bool(both[i]), bool(both[i] or new[i])) for i in range(n)}
    raw = {"name": "x", "kind": "leakage", "items": [{"text": k} for k in out], "max_spans": n}
    probe, spec = build_probe(raw)
    env, seen = Env(seed=run), ()
    while asks := probe.plan(spec, env, seen):
        (ask,) = asks
        tokens = 50
        levels = np.where([out[i.completion] for i in ask.items], -0.5, -50.0) / tokens  # [n, 2]
        first, second = (np.repeat(x, tokens) for x in levels.T)
        ones = np.ones((1, len(first)))
        offsets = np.arange(len(ask.items) + 1) * tokens
        values = {"gain": (second - first)[None], "rank": ones, "base_rank": ones}
        seen = (*seen, (Scores(ask.items, (FINETUNED,), offsets, values, first),))
    return probe.judge(spec, env, probe.measure(spec, env, seen), {})


def leak_rows(runs: int) -> None:
    print("| spans | from the base | beyond it | PASS | WARN | FAIL | INCONCLUSIVE |\n|---|---|---|---|---|---|---|")
    for n in (58, 59, 80, 200):
        for base, rate in ((0.0, 0.0), (0.0, 0.01), (0.0, 0.05), (0.2, 0.05), (0.0, 0.15), (0.0, 0.3)):
            verdicts = [leak(n, base, rate, r).verdict for r in range(runs)]
            print(f"| {n} | {base:.0%} | {rate:.0%} | {shares(verdicts)} |", flush=True)


def canary_rows(runs: int) -> None:
    print("| canaries | gain, sd of fresh ones | PASS | WARN | FAIL | INCONCLUSIVE |\n|---|---|---|---|---|---|")
    for k in (1, 3):
        for effect in (0.0, 2.0, 4.0):
            verdicts = []
            for run in range(runs):
                draws = stream(run, "canary", k, repr(effect)).normal(0, 1, (k, 100))
                found = [Ranked(str(i), rank_test(x[0] + effect, x[1:], scale="linear")) for i, x in enumerate(draws)]
                verdicts.append(judge_canaries(found, alpha=0.05, wanted=False).verdict)
            print(f"| {k} | {effect:.0f} | {shares(verdicts)} |", flush=True)


# ---- membership ------------------------------------------------------------------------------------------------------


def member(n: int, area: float, run: int) -> ProbeResult:
    """Judge `n` documents of each kind with Gaussian gains and this true area."""
    rng = stream(run, "member", n, repr(area))
    sides = {"items": np.sqrt(2) * stats.norm.ppf(area), "held_out": 0.0}
    texts = {k: [{"text": " ".join(map(str, rng.integers(10, 99, 12)))} for _ in range(n)] for k in sides}
    raw = {"name": "x", "kind": "membership", "intent": "generalize", "max_documents": n, **texts}
    probe, spec = build_probe(raw)
    answers = []
    for ask, mean in zip(probe.plan(spec, Env(seed=run), ()), sides.values(), strict=True):
        gain, base = rng.normal(mean, 1, n), rng.normal(-2, 0.4, n)
        answers.append(Scores(ask.items, (FINETUNED,), np.arange(n + 1), {"gain": gain[None]}, base))
    return probe.judge(spec, Env(seed=run), probe.measure(spec, Env(seed=run), (tuple(answers),)), {})


def told(result: ProbeResult) -> Verdict:
    return Verdict(result.evidence["claims"]["told_apart"]["verdict"])


def member_rows(runs: int) -> None:
    print("| documents of each | true area | PASS | WARN | FAIL | INCONCLUSIVE | p <= 0.05 | warned of form |")
    print("|---|---|---|---|---|---|---|---|")
    for n in (30, 60, 100):
        for area in (0.5, 0.65, 0.75, 0.9):
            results = [member(n, area, r) for r in range(runs)]
            found = np.mean([r.evidence["p"] <= 0.05 for r in results])
            warned = np.mean([bool(r.evidence["unlike"]) for r in results])
            row = f"| {n} | {area} | {shares(map(told, results))} | {found:.3f} | {warned:.3f} |"
            print(row, flush=True)


def shares(verdicts: Iterable[Verdict]) -> str:
    found = list(verdicts)
    count = Counter(found)
    return " | ".join(f"{count[v] / len(found):.3f}" for v in SHOWN)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    assert auc([1.0], [0.0], rng=stream(0, "check")).estimate == 1.0
    for rows, fewer in (
        (control_rows, 1),
        (quick_rows, 1),
        (drift_rows, 1),
        (category_rows, 2),
        (leak_rows, 1),
        (canary_rows, 1),
        (member_rows, 2),
    ):
        rows(runs // fewer)
        print()


if __name__ == "__main__":
    main()
