"""Simulate how often the probes of attribution pass where nothing was learned, and how often they find what was.

Run `python benchmarks/stats/probes_attribution.py` (some six minutes on one core), or with names of tables for those
alone; it prints the tables of docs/statistics/probes-attribution.md. Seeds are fixed. The probes themselves judge; only
the model is made up.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np
from scipy import special

from dlm_sway.adapters.nulls import rotate_output
from dlm_sway.core.determinism import stream
from dlm_sway.core.result import ProbeResult
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.drive import family_p
from dlm_sway.stats._interval import bounds
from dlm_sway.stats._ratio import ClusterSums
from dlm_sway.stats.alignment import rotation_draws, rotation_sd
from dlm_sway.stats.ratio import ratio_of_sums

RUNS, M = 200, 39
HEAD = "| case | PASS | WARN | FAIL | INCONCLUSIVE |\n|---|---|---|---|---|"
MARGIN = 0.1  # nat: how far a random direction moves the margins of all triples
DIRECTION = 0.05  # nat per token: how far a random direction moves a text, shared by all its tokens


def judged(raw: dict[str, Any], env: Env, answers: Any) -> ProbeResult:
    """Judge made-up answers to what a probe asks, alone in its suite."""
    probe, spec = build_probe({"name": "x", **raw})
    asks = probe.plan(spec, env, ())
    found = probe.measure(spec, env, (tuple(answers(ask, i) for i, ask in enumerate(asks)),))
    return probe.judge(spec, env, found, family_p([found])[id(found)])


def scores(ask: Ask, means: Any, size: int, spread: float, rng: np.random.Generator) -> Scores:
    """Return an answer whose tokens gain `means` (views by items) and vary by `spread` around it."""
    grid = np.repeat(np.asarray(means, dtype=np.float64), size, axis=1)
    offsets = np.arange(len(ask.items) + 1) * size
    values = grid + spread * rng.standard_normal(grid.shape)
    return Scores(ask.items, ask.views, offsets, {"gain": values}, rng.normal(-3, 1, offsets[-1]))


def views(ask: Ask, real: Any, rng: np.random.Generator, sd: float) -> Any:
    """Return means by view and item: the adapter's, and for each null a direction of its own."""
    shape = (len(ask.views) - 1, len(ask.items))
    nulls = sd * rng.standard_normal((shape[0], 1)) + 0.5 * sd * rng.standard_normal(shape)
    return np.concatenate([np.broadcast_to(real, (1, shape[1])), nulls])


def preference(n: int, change: float | None, run: int, *, wild: float = 1.0) -> ProbeResult:
    """Judge `n` triples whose margins change by `change` nat on average (None: by a random direction).

    Single triples scatter by 1 nat, under random directions by `wild`.
    """
    rng = stream(run, "preference", n, repr(change), *([repr(wild)] if wild != 1 else []))
    triples = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(n)]
    mean = MARGIN * rng.standard_normal() if change is None else change
    spread = wild if change is None else 1.0
    each = dict(zip((f"q{i}" for i in range(n)), mean + spread * rng.standard_normal(n), strict=True))

    def answers(ask: Ask, i: int) -> Scores:
        real = np.array([[each[item.prompt] * (k % 2 == 0) for k, item in enumerate(ask.items)]])
        if i == 0:
            return scores(ask, real, 1, 0.0, rng)
        drawn = MARGIN * rng.standard_normal((M, 1)) + wild * rng.standard_normal((M, len(ask.items) // 2))
        nulls = np.zeros((M, len(ask.items)))
        nulls[:, ::2] = drawn
        return scores(ask, np.concatenate([real, nulls]), 1, 0.0, rng)

    return judged({"kind": "preference_flip", "triples": triples}, Env(seed=run, n_draws=M), answers)


def paraphrase(n: int, ratio: float, learned: float, run: int, intent: str) -> ProbeResult:
    """Judge `n` cases of 8 tokens that gained `learned` nat/token, and a share `ratio` of it in other words."""
    rng = stream(run, "paraphrase", n, repr(ratio), repr(learned))
    cases = [{"prompt": f"q{i}", "gold": "a", "paraphrases": [f"{k} q{i}" for k in "xyz"]} for i in range(n)]
    verbatim = learned + DIRECTION * rng.standard_normal() * (learned == 0) + 0.3 * rng.standard_normal(n)

    def answers(ask: Ask, i: int) -> Scores:
        case = [int(item.cluster) for item in ask.items]
        share = np.where([item.label.endswith("wording 0)") for item in ask.items], 1.0, ratio)
        real = verbatim[case] * share + 0.1 * rng.standard_normal(len(case)) * (share < 1)
        return scores(ask, real[None] if i == 0 else views(ask, real, rng, DIRECTION), 8, 0.3, rng)

    raw = {"kind": "paraphrase_invariance", "cases": cases, "intent": intent}
    return judged(raw, Env(seed=run, n_draws=M), answers)


def sections(n: int, gain: float | None, run: int, *, bond: float = 0.0, others: float | None = None) -> ProbeResult:
    """Judge `n` sections of 96 tokens: the first half of them gain `gain`, the others `others` (None: noise)."""
    rng = stream(run, "sections", n, repr(gain), repr(bond), repr(others))
    texts = [{"text": f"a{i} b{i} c{i} d{i}", "label": str(i)} for i in range(n)]
    noise = DIRECTION * rng.standard_normal() + 0.5 * DIRECTION * rng.standard_normal(n)
    means = np.where(np.arange(n) < (n + 1) // 2, gain, gain if others is None else others) if gain else noise
    behind = 0.1 * rng.standard_normal(n)  # what a first half does to whatever stands behind it

    def answers(ask: Ask, i: int) -> Scores:
        if i == 2:
            return scores(ask, np.zeros((1, len(ask.items))), 30, 0.8, rng)
        who = [int(item.cluster) for item in ask.items]
        if i == 0:
            return scores(ask, means[who][None], 96, 0.8, rng)
        if i == 3:
            return scores(ask, views(ask, means[who], rng, DIRECTION), 32, 0.1, rng)
        own = np.array([item.label == item.cluster for item in ask.items])
        given = np.array([int(item.label.rpartition(" ")[2]) for item in ask.items])
        return scores(ask, [means[who] - bond * ~own + behind[given]], 48, 0.8, rng)

    return judged({"kind": "section_internalization", "sections": texts}, Env(seed=run, n_draws=M), answers)


def row(name: str, results: list[ProbeResult]) -> None:
    """Print shares of verdicts."""
    count = Counter(r.verdict.value for r in results)
    shares = (f"{count[v] / len(results):.3f}" for v in ("pass", "warn", "fail", "inconclusive"))
    print(f"| {name} | {' | '.join(shares)} |")


def preference_table() -> None:
    print(f"\n### preference_flip\n\n{HEAD}")
    for n in (15, 30, 50, 100):
        row(f"{n} triples, a random direction", [preference(n, None, r) for r in range(RUNS)])
        for change in (0.0, 0.2, 0.4, 0.5, 1.0):
            row(f"{n} triples, mean change {change} nat", [preference(n, change, r) for r in range(RUNS)])
    print(f"\n### preference_flip, strong adapters: under a random direction a triple scatters by 5 nat\n\n{HEAD}")
    for n in (15, 30, 50):
        row(f"{n} triples, a random direction", [preference(n, None, r, wild=5) for r in range(RUNS)])
        for change in (0.5, 1.0, 2.0):
            row(f"{n} triples, mean change {change} nat", [preference(n, change, r, wild=5) for r in range(RUNS)])


def paraphrase_table() -> None:
    print(f"\n### paraphrase_invariance\n\n{HEAD}")
    for n in (8, 15, 30):
        for intent, ratios in (("generalize", (0.5, 0.7, 0.9, 0.1)), ("memorize", (0.5, 0.3, 0.1, 0.9))):
            for ratio in ratios:
                results = [paraphrase(n, ratio, 0.6, r, intent) for r in range(RUNS)]
                row(f"{n} cases, {intent}, ratio {ratio}", results)
        row(f"{n} cases, generalize, nothing learned", [paraphrase(n, 1.0, 0.0, r, "generalize") for r in range(RUNS)])
        row(f"{n} cases, memorize, nothing learned", [paraphrase(n, 0.0, 0.0, r, "memorize") for r in range(RUNS)])


def whole(n: int, gain: float | None, run: int, others: float | None = None) -> ProbeResult:
    """Judge `n` sections of two texts of 48 tokens as they stand, without nulls; gains as in `sections`."""
    rng = stream(run, "whole", n, repr(gain), repr(others))
    texts = [{"text": f"{i} {k}", "cluster": str(i), "label": f"{i}:{k}"} for i in range(n) for k in range(2)]
    noise = DIRECTION * rng.standard_normal() + 0.5 * DIRECTION * rng.standard_normal(n)
    means = np.where(np.arange(n) < (n + 1) // 2, gain, gain if others is None else others) if gain else noise
    shared = 0.0 if gain else noise.mean()  # a random direction moves the controls too

    def answers(ask: Ask, i: int) -> Scores:
        if i == 1:
            return scores(ask, np.full((1, len(ask.items)), shared), 30, 0.8, rng)
        return scores(ask, means[[int(item.cluster) for item in ask.items]][None], 48, 0.8, rng)

    raw = {"kind": "section_internalization", "sections": texts, "read": "whole"}
    return judged(raw, Env(seed=run, n_draws=M), answers)


def whole_table() -> None:
    print("\n### section_internalization, read: whole\n")
    print("| sections | gain of the first half of them | of the others | some took | of the first half took |"
          " of the others took | PASS |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for n in (4, 8, 12):
        for gain, others in ((None, None), (0.05, 0.05), (0.2, 0.2), (0.4, 0.4), (0.4, 0.0)):
            results = [whole(n, gain, r, others) for r in range(RUNS if gain is None else RUNS // 4)]
            _took_row(n, gain, others, results)


def section_table() -> None:
    print("\n### section_internalization\n")
    print("| sections | gain of the first half of them | of the others | some took | of the first half took |"
          " of the others took | PASS |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for n in (4, 8, 12):
        for gain, others in ((None, None), (0.05, 0.05), (0.2, 0.2), (0.4, 0.4), (0.4, 0.0)):
            results = [sections(n, gain, r, others=others) for r in range(RUNS if gain is None else RUNS // 4)]
            _took_row(n, gain, others, results)


def _took_row(n: int, gain: float | None, others: float | None, results: list[ProbeResult]) -> None:
    took = np.array([[str(i) in r.evidence["took"] for i in range(n)] for r in results])
    k = (n + 1) // 2
    shares = (took.any(axis=1).mean(), took[:, :k].mean(), took[:, k:].mean())
    passed = np.mean([r.verdict.value == "pass" for r in results])
    what = ("a random direction", "") if gain is None else (f"{gain} nat/token", f"{others} nat/token")
    print(f"| {n} | {' | '.join(what)} | {' | '.join(f'{s:.3f}' for s in shares)} | {passed:.3f} |")


def bond_table() -> None:
    print("\n### The bond of sections to their first halves\n")
    print("| sections | bond, nat/token | p <= 0.05 (N4) | mean estimate |\n|---|---|---|---|")
    for n in (4, 8):
        for bond in (0.0, 0.1, 0.3):
            claims = [sections(n, 0.4, r, bond=bond).evidence["bond"] for r in range(RUNS // 2)]
            found = np.mean([c["p"] <= 0.05 for c in claims])
            print(f"| {n} | {bond} | {found:.3f} | {np.mean([c['estimate'] for c in claims]):+.3f} |")


def coverage() -> None:
    """Print how often the interval of a ratio misses the true one, Fieller's and BCa's."""
    print("\n### The interval of the ratio (true ratio 0.5)\n")
    print("| cases | gains | Fieller misses | has none | BCa misses |\n|---|---|---|---|---|")
    for n in (5, 8, 15, 30, 60):
        for shape in ("normal", "skewed"):
            missed: dict[str, list[bool]] = {"fieller": [], "none": [], "bca": []}
            for run in range(400):
                rng = stream(run, "coverage", n, shape)
                v = rng.normal(1, 0.4, n) if shape == "normal" else rng.lognormal(-0.3, 0.8, n)
                p = 0.5 * v + 0.2 * rng.standard_normal(n) * (1 if shape == "normal" else np.sqrt(v))
                f = ratio_of_sums(p, v)
                missed["none"].append(f.low is None)
                missed["fieller"].append(f.low is not None and not f.low <= 0.5 <= f.high)
                if (v > 0).all():
                    b = bounds((ClusterSums(p, v, n),), tail=0.025, rng=rng)
                    missed["bca"].append(not b.low <= 0.5 <= b.high)
            print(f"| {n} | {shape} | {' | '.join(f'{np.mean(x):.3f}' for x in missed.values())} |")


def alignment() -> None:
    """Print how the closed form, the draws and true rotations agree, and what a true slope shows."""
    print("\n### gradient_alignment\n")
    print(
        "| modules | d_out, r | sd of 2,000 rotations / closed form | sd of draws / closed form | p of their KS test |"
    )
    print("|---|---|---|---|---|")
    from scipy import stats

    for modules, d, r in ((1, 8, 4), (1, 64, 8), (8, 64, 8), (4, 16, 16)):
        rng = stream(d, "alignment", modules)
        pairs = [rng.standard_normal((2, d, r)) for _ in range(modules)]
        spectra = [np.linalg.svd(g @ np.linalg.qr(b, mode="r").T, compute_uv=False) for b, g in pairs]
        turned = np.array(
            [
                sum(
                    float(np.vdot(g, rotate_output(b.astype(np.float32), seed=0, draw=k, module=str(m))))
                    for m, (b, g) in enumerate(pairs)
                )
                for k in range(2000)
            ]
        )
        drawn = rotation_draws(spectra, [d] * modules, n_draws=20_000, rng=rng).sum(axis=0)
        sd = float(np.linalg.norm(rotation_sd(spectra, [d] * modules)))
        ks = stats.ks_2samp(turned, drawn).pvalue
        print(f"| {modules} | {d}, {r} | {turned.std() / sd:.3f} | {drawn.std() / sd:.3f} | {ks:.2f} |")
    print("\n| true z | p <= 0.05 | p <= 0.001 |\n|---|---|---|")
    spectra, d = [np.ones(4)] * 8, 64
    sd = float(np.linalg.norm(rotation_sd(spectra, [d] * 8)))
    for z in (0.0, 1.0, 2.8, 4.0, 6.0):
        p = []
        for run in range(400):
            rng = stream(run, "slope", repr(z))
            real = z * sd + rotation_draws(spectra, [d] * 8, n_draws=1, rng=rng).sum()
            nulls = rotation_draws(spectra, [d] * 8, n_draws=999, rng=rng).sum(axis=0)
            p.append((1 + int((nulls >= real).sum())) / 1000)
        normal = [float(special.ndtr(z - q)) for q in (1.645, 3.09)]
        found = (np.mean(np.array(p) <= 0.05), np.mean(np.array(p) <= 0.001))
        print(f"| {z} | {found[0]:.3f} (normal: {normal[0]:.3f}) | {found[1]:.3f} (normal: {normal[1]:.3f}) |")


TABLES = {
    "preference": preference_table,
    "paraphrase": paraphrase_table,
    "coverage": coverage,
    "sections": section_table,
    "whole": whole_table,
    "bonds": bond_table,
    "alignment": alignment,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or TABLES:
        TABLES[name]()
