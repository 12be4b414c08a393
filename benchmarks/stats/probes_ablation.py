"""Simulate how often shapes are named right, another scale is advised in vain, and a rank profile errs.

Run `python benchmarks/stats/probes_ablation.py` (under three minutes on one core); it prints the tables of
docs/statistics/probes-ablation.md. Seeds are fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.stats.curves import Shape, shape
from dlm_sway.stats.dose import Dose, Items, dose
from dlm_sway.stats.shares import share

Curve: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

RUNS = 400
RESAMPLES = 400
LAM = np.array([0.25, 0.5, 0.75, 1.0, 1.25])
EFFECTS: dict[str, tuple[Curve, str]] = {
    "linear": (LAM, "healthy"),
    "quadratic": (LAM**2, "healthy"),
    "cubic": (LAM**3, "healthy"),
    "quadratic, then linear": (np.where(LAM < 0.5, LAM**2, LAM - 0.25), "healthy"),
    "exponent 0.45 above half": (LAM**0.45, "healthy"),
    "saturated": (1 - np.exp(-8 * LAM), "saturated"),
    "exponent 0.15 above half": (LAM**0.15, "saturated"),
    "step between 0.5 and 0.75": (1 / (1 + np.exp(-60 * (LAM - 0.62))), "step"),
    "soft step, 0.7 of the rise": (np.array([0.05, 0.12, 0.82, 0.92, 1.0]), "step"),
    "effect falls by half": (np.array([0.3, 0.7, 1.0, 0.8, 0.5]), "overshoot-and-crash"),
}
GAINS: dict[str, tuple[Curve, str]] = {
    "gain rises": (2 * LAM, "healthy"),
    "gain flat beyond 0.5": (np.array([1.2, 2.0, 2.1, 2.14, 2.1]), "healthy"),
    "gain loses a quarter": (np.array([1.2, 2.0, 2.0, 1.8, 1.5]), "healthy"),
    "gain lost beyond 1": (np.array([1.2, 2.0, 2.1, 1.5, 0.5]), "overshoot-and-crash"),
    "gain comes late": (np.array([0.1, 0.2, 0.3, 0.5, 1.2]), "healthy"),
    "gain lost at 1, won back at 1.25": (np.array([0.5, 0.9, 1.0, 0.4, 0.8]), "overshoot-and-crash"),
    "over-trained": (np.array([0.3, 0.1, -0.7, -1.63, -2.8]), "overshoot-and-crash"),
}
FLAT, RISING = np.full(5, 1.0), np.array([0.6, 1.1, 1.5, 1.8, 2.0])
PLATEAU, PEAKED = np.array([1.2, 1.9, 2.1, 2.14, 2.1]), np.array([1.5, 2.4, 2.3, 2.1, 1.7])
AT_ONE, AT_HALF = np.array([1.2, 1.7, 2.0, 2.1, 2.0]), np.array([0.9, 1.05, 1.02, 1.0, 0.9])
NONE, HARM = np.zeros(5), np.array([-0.05, -0.11, 0.05, 0.26, 0.6])
LOUD, QUIET = 0.15, 0.03
DOSES: dict[str, tuple[Curve, Curve, float | None, float]] = {
    "equal gain at every scale, no harm": (FLAT, NONE, 1.0, LOUD),
    "equal gain at every scale, no harm, quiet": (FLAT, NONE, 1.0, QUIET),
    "0.1 better at 1 than beside it, no harm": (AT_ONE, NONE, 1.0, LOUD),
    "0.1 better at 1 than beside it, no harm, quiet": (AT_ONE, NONE, 1.0, QUIET),
    "0.05 better at half, no harm": (AT_HALF, NONE, 0.5, LOUD),
    "0.05 better at half, no harm, quiet": (AT_HALF, NONE, 0.5, QUIET),
    "0.3 better at half, no harm": (PEAKED, NONE, 0.5, LOUD),
    "0.6 better at half, no harm, very loud": (np.array([0.63, 0.9, 0.6, 0.3, 0.12]), NONE, 0.5, 1.0),
    "gain rises through 1.25, no harm": (RISING, NONE, 1.25, LOUD),
    "plateau, harm 0.26 at full scale": (PLATEAU, HARM, 0.5, LOUD),
    "rising, harm at the margin everywhere": (RISING, np.full(5, 0.05), None, LOUD),
    "rising, harm 0.5 everywhere": (RISING, np.full(5, 0.5), None, LOUD),
    "rising, harm at the margin from 1 on": (RISING, np.array([0.0, 0.0, 0.0, 0.05, 0.1]), 0.75, LOUD),
}
KEPT: dict[str, Sequence[float]] = {
    "spread evenly": (0.26, 0.48, 0.75, 0.9),
    "0.85 in an eighth": (0.85, 0.9, 0.95, 0.98),
    "0.9 in an eighth": (0.9, 0.95, 0.97, 0.99),
    "0.97 in an eighth": (0.97, 0.98, 0.99, 1.0),
    "nothing in any cut": (0.01, 0.02, 0.03, 0.05),
}


def items(curve: Curve, n: int, rng: np.random.Generator, *, size: float = 0.7, noise: float = 0.2) -> Curve:
    """Return float64[L, n]: divergences of `n` prompts of unlike size along one curve, each off it at each scale."""
    return curve[:, None] * np.exp(size * rng.standard_normal(n) + noise * rng.standard_normal((len(curve), n)))


def texts(curve: Curve, n: int, rng: np.random.Generator, *, spread: float, noise: float) -> Items:
    """Return texts of 20 to 60 tokens whose gain per token is off the curve as a whole and at each scale."""
    tokens = rng.integers(20, 61, n)
    off = np.outer(LAM, spread * rng.standard_normal(n)) + noise * LAM[:, None] * rng.standard_normal((len(LAM), n))
    return Items(tokens * (curve[:, None] + off), tokens)


def effect_shape(curve: Curve, n: int, run: int) -> Shape:
    rng = stream(run, "effect", n)
    return shape(LAM, items(curve, n, rng), floor=1e-9, n_resamples=RESAMPLES, rng=rng)


def gain_shape(curve: Curve, n: int, run: int) -> Shape:
    rng = stream(run, "gain", n)
    gains = texts(curve, n, rng, spread=0.5, noise=0.15)
    return shape(
        LAM, items(LAM**2, 32, rng), None, gains.totals, gains.tokens, floor=1e-9, n_resamples=RESAMPLES, rng=rng
    )


def advice(gain: Curve, harm: Curve, n: int, n_control: int, run: int, *, noise: float) -> Dose:
    rng = stream(run, "dose", n, n_control)
    target = texts(gain, n, rng, spread=0.5, noise=noise)
    control = texts(-harm, n_control, rng, spread=0.1, noise=0.03)
    return dose(LAM, target, control, n_resamples=RESAMPLES, rng=rng)


def profile(kept: Sequence[float], n: int, run: int) -> str:
    """Judge one made-up data set by the probe itself."""
    raw = {"name": "x", "kind": "rank_profile", "items": [f"{i}" for i in range(n)], "prompts": ["a", "b"]}
    probe, spec = build_probe(raw)
    env, rng = Env(null_refusal="none drawn"), stream(run, "rank", n)
    answers = []
    for ask in probe.plan(spec, env, ()):
        k, (name,) = len(ask.items), ask.reducers
        rows = np.array([1.0, *kept])[:, None] * np.exp(0.5 * rng.standard_normal(k))
        rows += 0.15 * rng.standard_normal((5, k)) * np.sqrt(1 - np.array([1.0, *kept]) ** 2)[:, None]
        answers.append(Scores(ask.items, ask.views, np.arange(k + 1), {name: rows}, np.full(k, -2.0)))
    return str(probe.judge(spec, env, probe.measure(spec, env, (tuple(answers),)), {}).verdict.value)


def name_row(label: str, truth: str, found: list[Shape]) -> None:
    right = sum(s.decided and s.name == truth for s in found)
    wrong = Counter(s.name for s in found if s.decided and s.name != truth)
    worst = ", ".join(f"{name} {k / len(found):.3f}" for name, k in wrong.most_common())
    shares = (right / len(found), sum(wrong.values()) / len(found), sum(not s.decided for s in found) / len(found))
    print(f"| {label} | {truth} | {' | '.join(f'{x:.3f}' for x in shares)} | {worst or '-'} |")


def dose_row(label: str, truth: float | None, found: list[Dose]) -> None:
    named = Counter(d.lam for d in found)
    by_eye = sum(d.lambdas[int(np.argmax(d.gains))] != 1.0 for d in found) / len(found)
    right = named[truth] / len(found)
    moved = sum(k for lam, k in named.items() if lam not in (truth, 1.0, None)) / len(found)
    covered = sum(d.interval is not None and d.interval[0] <= (truth or 0.0) <= d.interval[1] for d in found)
    rest = (right, named[1.0] / len(found), moved, named[None] / len(found), covered / len(found), by_eye)
    best = "none" if truth is None else f"{truth:g}"
    print(f"| {label} | {best} | {' | '.join(f'{x:.3f}' for x in rest)} |")


def repeated(judge: Callable[[int], Any]) -> list[Any]:
    return [judge(run) for run in range(RUNS)]


def main() -> None:
    print(f"| response, prompts | truth | named right | named wrong | not decided | wrong names |\n|{'---|' * 6}")
    for label, (curve, truth) in EFFECTS.items():
        for n in (8, 32):
            name_row(f"{label}, {n}", truth, repeated(lambda r, c=curve, k=n: effect_shape(c, k, r)))
    for label, (curve, truth) in GAINS.items():
        for n in (8, 32):
            name_row(f"{label}, {n} texts", truth, repeated(lambda r, c=curve, k=n: gain_shape(c, k, r)))
    head = "| case, texts and controls | best safe | named it | 1 as good | named another | open or none |"
    print(f"\n{head} interval has it | largest mean is not at 1 |\n|{'---|' * 8}")
    for label, (gain, harm, truth, noise) in DOSES.items():
        for n, k in ((12, 20), (30, 40)):
            found = repeated(lambda r, g=gain, h=harm, a=n, b=k, s=noise: advice(g, h, a, b, r, noise=s))
            dose_row(f"{label}, {n} and {k}", truth, found)
    print("\n| gain kept by the cuts, texts | PASS | WARN | INCONCLUSIVE |\n|---|---|---|---|")
    for label, kept in KEPT.items():
        for n in (8, 30):
            count = Counter(repeated(lambda r, c=kept, k=n: profile(c, k, r)))
            shares = (f"{count[v] / RUNS:.3f}" for v in ("pass", "warn", "inconclusive"))
            print(f"| {label}, {n} | {' | '.join(shares)} |")
    covered = 0
    for run in range(2000):
        rng = stream(run, "fieller")
        whole = 1 + 0.8 * rng.standard_normal(15)
        found = share(0.5 * whole + 0.3 * rng.standard_normal(15), whole)
        covered += found.low is not None and found.high is not None and found.low < 0.5 < found.high
    print(f"\nFieller's 95 % interval of a share, 15 texts, covers {covered / 2000:.3f}")


if __name__ == "__main__":
    main()
