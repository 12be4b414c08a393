"""Simulate how often the probes of context, topic and training err, and how often they find what they look for.

Run `python benchmarks/stats/probes_context.py` (about four minutes on one core); it prints the tables of
docs/statistics/probes-context.md. Seeds are fixed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.data.training_log import TrainingLog
from dlm_sway.probes.base import Env, Found, build_probe
from dlm_sway.probes.cluster_kl import FEWEST, _verdict
from dlm_sway.probes.fade import Fading
from dlm_sway.probes.optimizer_state import OptimizerState, TrainedTensor
from dlm_sway.stats.decay import decay
from dlm_sway.stats.icc import group_test
from dlm_sway.stats.loss_curve import loss_curve

RUNS = 400
LENGTHS = np.array([0.0, 256.0, 512.0, 1024.0])
SHORT = np.array([0.0, 64.0, 128.0])
TURNS = np.arange(4.0)
F64 = np.ndarray[Any, np.dtype[np.float64]]


def fades(x: F64, n: int, half_life: float, minimum: float, run: int) -> tuple[Verdict, bool, bool]:
    """Judge one data set: effects log-normal, sd 0.6 between prompts and 0.5 between lengths of one prompt.

    Returns the verdict and whether each lower bound lies over the truth.
    """
    rng = stream(run, "fades", n, repr(half_life), x.size, repr(float(x[-1])))
    own, noise = np.exp(rng.normal(0, 0.6, n)), np.exp(rng.normal(0, 0.5, (x.size, n)))
    found = decay(x, own * np.exp2(-x / half_life)[:, None] * noise)
    assert found.low is not None
    assert found.half_life_low is not None
    verdict = Fading(found, "", minimum, "", "", "").question().verdict
    return verdict, bool(found.low[-1] > 2 ** (-x[-1] / half_life)), found.half_life_low > half_life


def uneven(n: int, run: int) -> tuple[float, bool, bool]:
    """Return how many prompts alike a data set is worth, and whether each lower bound lies over the truth.

    Prompts differ by an sd of 0.6 to 3 in logs; the half-life is 512 tokens.
    """
    rng = stream(run, "uneven", n)
    own = np.exp((0.6, 1.0, 1.5, 2.0, 3.0)[run % 5] * rng.standard_normal(n))
    noise = np.exp(rng.normal(0, 0.5, (LENGTHS.size, n)))
    found = decay(LENGTHS, own * np.exp2(-LENGTHS / 512)[:, None] * noise)
    assert found.low is not None
    assert found.half_life_low is not None
    return found.worth, bool(found.low[-1] > 0.25), found.half_life_low > 512


def topics(n: int, k: int, share: float, run: int, *, skewed: bool) -> tuple[Verdict, float]:
    """Judge one data set with that ICC of the log effect between fixed topics.

    Logs normal within topics, or `skewed` still: a prompt's effect is a mean over tokens of which a few are large.
    """
    rng = stream(run, "topics", n, k, repr(share), str(skewed))
    level = rng.standard_normal(k)
    level = (level - level.mean()) / level.std(ddof=1)
    within = rng.standard_normal(n)
    if skewed:
        within = (np.exp(within) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    values = math.sqrt(share) * level[np.arange(n) % k] + math.sqrt(1 - share) * within
    _, spec = build_probe({"name": "x", "kind": "cluster_kl", "intent": "specific"})
    test = group_test(values, [str(i % k) for i in range(n)], rng=rng)
    assert test.icc is not None
    return _verdict(test, spec, Env())[0], test.icc  # type: ignore[arg-type]


def noise(kind: str, n: int, rng: np.random.Generator) -> F64:
    """Return noise of log losses: Gaussian, heavy-tailed, of gamma losses, or correlated (0.6 from point to point)."""
    if kind == "gauss":
        return 0.15 * rng.standard_normal(n)
    if kind == "t4":
        return 0.12 * rng.standard_t(4, n)
    if kind == "gamma":
        return np.log(rng.gamma(12, 1 / 12, n))
    out, e = np.zeros(n), 0.1 * rng.standard_normal(n)
    for i in range(n):
        out[i] = 0.6 * out[i - 1] + e[i] if i else e[i]
    return out


def training(shape: str, kind: str, n: int, run: int) -> tuple[str, str]:
    """Judge one log; returns the verdicts of `converges` and of `steady`."""
    rng = stream(run, "training", shape, kind, n)
    t = np.linspace(0, 1, n)
    level = {
        "flat": 0 * t,
        "falls": -0.7 * (1 - np.exp(-4 * t)),
        "rises": 0.3 * t,
        "diverges": -0.7 * (1 - np.exp(-8 * t)) + 3 * np.maximum(0, t - 0.8),
        "spikes": -0.7 * (1 - np.exp(-4 * t)),
    }[shape]
    y = np.exp(1 + level + noise(kind, n, rng))
    if shape == "spikes":
        y[rng.choice(np.arange(5, n), max(3, n // 50), replace=False)] *= 8
    probe, spec = build_probe({"name": "x", "kind": "training_drift", "log": "log"})
    log = TrainingLog(Path("log"), tuple(enumerate(map(float, y))))
    result = probe.judge(spec, Env(), Found(data={"log": log, "curve": loss_curve(y)}), {})
    return tuple(result.evidence["claims"][name]["verdict"] for name in ("converges", "steady"))  # type: ignore[return-value]


def ghosts(steps: int, missing: int, run: int) -> Verdict:
    """Judge one state of Adam after training two factors, B from 0, on random data; `missing` tensors get nothing."""
    rng = stream(run, "ghosts", steps, missing)
    a, b, moments = rng.standard_normal((2, 6)), np.zeros((6, 2)), [np.zeros((2, 6)), np.zeros((6, 2))]
    for _ in range(steps):
        x = rng.standard_normal((4, 6))
        error = x @ a.T @ b.T - x
        gradients = [(error @ b).T @ x, error.T @ (x @ a.T)]
        moments = [m + 0.001 * (g**2 - m) for m, g in zip(moments, gradients, strict=True)]
        a, b = a - 0.01 * np.sign(gradients[0]), b - 0.01 * np.sign(gradients[1])
    tensors = [TrainedTensor(str(i), m.size, steps, 0, float((m == 0).mean())) for i, m in enumerate(moments)]
    tensors += [TrainedTensor("ghost", 0, None, 0, None)] * missing
    probe, spec = build_probe({"name": "x", "kind": "gradient_ghost", "checkpoint": "x", "min_steps": 0})
    state = OptimizerState(Path("x"), tuple(tensors), keeps_moments=True, adaptive=True)
    return probe.judge(spec, Env(), Found(data={"optimizer": state, "trainer": {}}), {}).verdict


def raw_or_log() -> None:
    """Print the power of the F test on effects and on their logs, where topics differ by factors."""
    from scipy import stats

    print("\n| prompts of 5 topics, ICC of the logs, their sd | effects | logs |\n|---|---|---|")
    for n in (30, 50):
        for share, sd in ((0.2, 0.5), (0.2, 1.0), (0.4, 0.5), (0.4, 1.0)):
            rng = stream(n, "raw or log", repr(share), repr(sd))
            level = rng.standard_normal((RUNS, 5))
            level = (level - level.mean(axis=1, keepdims=True)) / level.std(axis=1, ddof=1, keepdims=True)
            logs = math.sqrt(share) * level[:, np.arange(n) % 5] + math.sqrt(1 - share) * rng.standard_normal((RUNS, n))
            found = [
                np.mean([stats.f_oneway(*(row[k::5] for k in range(5))).pvalue <= 0.05 for row in values])
                for values in (np.exp(sd * logs), logs)
            ]
            print(f"| {n}, {share:g}, {sd:g} | {found[0]:.3f} | {found[1]:.3f} |")


def shares(judged: list[Any], words: tuple[str, ...]) -> str:
    count = Counter(str(j) for j in judged)
    return " | ".join(f"{count[word] / len(judged):.3f}" for word in words)


def table(title: str, words: tuple[str, ...], rows: dict[str, Callable[[int], Any]]) -> None:
    print(f"\n| {title} | {' | '.join(words)} |\n|---|{'---|' * len(words)}")
    for name, judge in rows.items():
        print(f"| {name} | {shares([judge(run) for run in range(RUNS)], words)} |")


def fading_table(title: str, x: F64, minimum: float, half_lives: tuple[float, ...], sizes: tuple[int, ...]) -> None:
    words = ("pass", "fail", "inconclusive")
    print(
        f"\n| {title} | {' | '.join(words)} | bound of the share misses | of the half-life |\n|---|---|---|---|---|---|"
    )
    for n in sizes:
        for h in half_lives:
            found = [fades(x, n, h, minimum, run) for run in range(RUNS)]
            missed = " | ".join(f"{sum(f[i] for f in found) / RUNS:.3f}" for i in (1, 2))
            print(f"| {n}, half-life {h:g} | {shares([f[0] for f in found], words)} | {missed} |")


def uneven_table() -> None:
    print("\n| worth so many alike | data sets | bound of the share misses | of the half-life |\n|---|---|---|---|")
    found = np.array([uneven(n, run) for n in (8, 16, 32) for run in range(5 * RUNS)])
    for low, high in ((1, 2), (2, 3), (3, 5), (5, 32)):
        rows = found[(found[:, 0] >= low) & (found[:, 0] < high)]
        print(f"| {low} to {high} | {len(rows):,} | {rows[:, 1].mean():.3f} | {rows[:, 2].mean():.3f} |")


def main() -> None:
    decided = ("pass", "fail", "inconclusive")
    fading_table("prompt_collapse, prompts", LENGTHS, 512, (128, 256, 512, 1024, 2048, math.inf), (8, 16, 32))
    fading_table("prompt_collapse up to 128 tokens, prompts", SHORT, 512, (128, 256, 512, 1024, math.inf), (8, 16, 32))
    fading_table("multi_turn, conversations", TURNS, 2, (0.5, 1, 2, 3, 6, math.inf), (8, 16, 32))
    uneven_table()
    cluster_tables(decided)
    training_tables(decided)


def cluster_tables(decided: tuple[str, ...]) -> None:
    rows: dict[str, Callable[[int], Any]] = {}
    for skewed in (False, True):
        for n in (FEWEST, 50, 100):
            for share in (0.0, 0.2, 0.4, 0.6):
                name = f"{n} of 5 topics, ICC {share:g}, {'skewed' if skewed else 'normal'} logs"
                rows[name] = lambda r, n=n, s=share, k=skewed: topics(n, 5, s, r, skewed=k)[0]
    table("cluster_kl, prompts", decided, rows)
    chance = [topics(n, 5, 0.0, r, skewed=False)[1] for n in (FEWEST, 50) for r in range(RUNS)]
    print(f"\nMean ICC at 0: {np.mean(chance[:RUNS]):+.3f} of {FEWEST}, {np.mean(chance[RUNS:]):+.3f} of 50")
    raw_or_log()


def training_tables(decided: tuple[str, ...]) -> None:
    for i, title in enumerate(("training_drift, converges", "training_drift, steady")):
        rows = {
            f"{shape}, {n} points, {kind}": lambda r, s=shape, k=kind, n=n, i=i: training(s, k, n, r)[i]
            for shape in (("flat", "falls", "rises", "diverges") if i == 0 else ("falls", "spikes"))
            for kind in ("gauss", "t4", "gamma", "correlated")
            for n in (30, 200)
        }
        table(title, ("pass", "warn", "fail", "inconclusive"), rows)
    rows = {
        f"{s} steps, {m} tensors without a gradient": lambda r, s=s, m=m: ghosts(s, m, r)
        for s, m in ((1, 0), (2, 0), (30, 0), (30, 1))
    }
    table("gradient_ghost", decided, rows)


if __name__ == "__main__":
    main()
