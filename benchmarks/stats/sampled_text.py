"""Simulate how often the test on sampled text finds a difference where there is none, and where there is one.

Run `python benchmarks/stats/sampled_text.py` (about three minutes on one core); it prints the tables of
docs/statistics/sampled-text.md: first how the minimum was chosen, then, on other pairs of models, how often the test
errs with it. Seeds are fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.probes.claims import at_least
from dlm_sway.stats.mmd import two_sample
from dlm_sway.stats.paired import Estimate, gain

VOCAB, LENGTH, RUNS = 64, 16, 200
CHOOSE, REPORT = range(RUNS), range(10_000, 10_000 + RUNS)
MINIMA = (0.001, 0.0015, 0.002, 0.003, 0.005, 0.008)
MINIMUM = 0.003  # of MINIMA, the smallest that a probe as it comes denies in half of the pairs that are no different
Array = np.ndarray


def log_softmax(z: Array) -> Array:
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


class World:
    """A Markov chain over a small vocabulary a prompt, and one that is moved by `size`, so that places depend."""

    def __init__(self, n_prompts: int, size: float, run: int) -> None:
        rng = stream(run, "world", n_prompts)
        shape = (n_prompts, VOCAB, VOCAB)
        self.base = 2.0 * rng.standard_normal(shape)
        self.moved = self.base + size * rng.standard_normal(shape)

    def kl(self) -> float:
        """Return KL(base || moved), mean over states, nat a token."""
        p, q = log_softmax(self.base), log_softmax(self.moved)
        return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def texts(logits: Array, n: int, rng: np.random.Generator) -> list[Array]:
    """Draw int64[n, LENGTH] from each prompt's chain; all begin in state 0."""
    n_prompts = len(logits)
    out = np.zeros((n_prompts, n, LENGTH), dtype=np.int64)
    last = np.zeros((n_prompts, n), dtype=np.int64)
    for t in range(LENGTH):
        noise = rng.gumbel(size=(n_prompts, n, VOCAB))
        last = (logits[np.arange(n_prompts)[:, None], last] + noise).argmax(axis=-1)
        out[:, :, t] = last
    return list(out)


def once(n_prompts: int, samples: int, size: float, run: int) -> tuple[Estimate, float, float]:
    """Return the distance, p, and the KL of one made-up pair of models."""
    world, rng = World(n_prompts, size, run), stream(run, "draws", n_prompts, samples, repr(size))
    moved = world.moved if size else world.base
    found = two_sample(texts(world.base, samples, rng), texts(moved, samples, rng), n_permutations=999, rng=rng)
    return gain(found.per_prompt, np.ones(n_prompts, dtype=np.int64), rng=rng), found.p, world.kl()


def verdict(effect: Estimate, p: float, minimum: float) -> Verdict:
    said = at_least(effect, minimum)
    if (said is Verdict.PASS and p > 0.05) or (said is Verdict.FAIL and p <= 0.05):
        return Verdict.INCONCLUSIVE
    return said


def shares(pairs: Sequence[tuple[Estimate, float, float]], minimum: float) -> str:
    count = Counter(verdict(effect, p, minimum) for effect, p, _ in pairs)
    return " | ".join(f"{count[v] / RUNS:.3f}" for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE))


def row(n_prompts: int, samples: int, size: float) -> str:
    pairs = [once(n_prompts, samples, size, run) for run in REPORT]
    p, kl = np.array([p for _, p, _ in pairs]), np.array([kl for *_, kl in pairs])
    mean = np.mean([effect.estimate for effect, *_ in pairs])
    figures = f"{kl.mean():.3f} | {mean:+.4f} | {(p <= 0.05).mean():.3f}"
    return f"| {n_prompts} | {samples} | {figures} | {shares(pairs, MINIMUM)} |"


def main() -> None:
    print("| minimum | KL, nat/token | PASS | FAIL | INCONCLUSIVE |")
    print("|---|---|---|---|---|")
    for size in (0.0, 0.8):
        pairs = [once(32, 16, size, run) for run in CHOOSE]
        kl = np.mean([kl for *_, kl in pairs])
        for minimum in MINIMA:
            print(f"| {minimum:g} | {kl if size else 0:.3f} | {shares(pairs, minimum)} |", flush=True)
    print("\n| prompts | samples | KL, nat/token | mean estimate | p <= 0.05 | PASS | FAIL | INCONCLUSIVE |")
    print("|---|---|---|---|---|---|---|---|")
    for n_prompts, samples in ((32, 16), (32, 8), (12, 16), (6, 8)):
        for size in (0.0, 0.2, 0.4, 0.8):
            print(row(n_prompts, samples, size), flush=True)


if __name__ == "__main__":
    main()
