"""Simulate how often the test on sampled text finds a difference where there is none, and where there is one.

Run `python benchmarks/stats/sampled_text.py` (about three minutes on one core); it prints the tables of
docs/statistics/sampled-text.md. Seeds are fixed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.probes.claims import at_least
from dlm_sway.stats.mmd import two_sample
from dlm_sway.stats.paired import gain

VOCAB, LENGTH, RUNS, MINIMUM = 64, 16, 200, 0.003
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


def once(n_prompts: int, samples: int, size: float, run: int) -> tuple[Verdict, float, float, float]:
    """Return verdict, p, estimate and KL of one made-up pair of models."""
    world, rng = World(n_prompts, size, run), stream(run, "draws", n_prompts, samples, repr(size))
    moved = world.moved if size else world.base
    found = two_sample(texts(world.base, samples, rng), texts(moved, samples, rng), n_permutations=999, rng=rng)
    effect = gain(found.per_prompt, np.ones(n_prompts, dtype=np.int64), rng=rng)
    verdict = at_least(effect, MINIMUM)
    if (verdict is Verdict.PASS and found.p > 0.05) or (verdict is Verdict.FAIL and found.p <= 0.05):
        verdict = Verdict.INCONCLUSIVE
    return verdict, found.p, effect.estimate, world.kl()


def row(n_prompts: int, samples: int, size: float) -> str:
    found = [once(n_prompts, samples, size, run) for run in range(RUNS)]
    count = Counter(verdict for verdict, *_ in found)
    _, p, estimate, kl = (np.array(column) for column in zip(*found, strict=True))
    shares = " | ".join(f"{count[v] / RUNS:.3f}" for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE))
    figures = f"{kl.mean():.3f} | {estimate.mean():+.4f} | {(p <= 0.05).mean():.3f}"
    return f"| {n_prompts} | {samples} | {figures} | {shares} |"


def main() -> None:
    print("| prompts | samples | KL, nat/token | mean estimate | p <= 0.05 | PASS | FAIL | INCONCLUSIVE |")
    print("|---|---|---|---|---|---|---|---|")
    for n_prompts, samples in ((32, 16), (32, 8), (12, 16), (6, 8)):
        for size in (0.0, 0.2, 0.4, 0.8):
            print(row(n_prompts, samples, size), flush=True)


if __name__ == "__main__":
    main()
