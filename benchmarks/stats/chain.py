"""Simulate how often the chain calls a sound link broken, and how often it finds a broken one.

Run `python benchmarks/stats/chain.py` (about a minute on one core); it prints the tables of
docs/statistics/equivalence.md. Seeds are fixed.

A text has a mean effect of its own and tokens around it; half of the texts are the user's, with a large effect, half
are general, with little. A link has the log-probs of some scale of the adapter plus what its format does: noise by
token, some of it shared within a text, and a loss on average of half the noise's variance (that of a model whose
logits are jittered).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from dlm_sway.chain.behaviour import decide
from dlm_sway.chain.margins import margin_of
from dlm_sway.chain.stop import judge_stop
from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.stats.equivalence import equivalence
from dlm_sway.stats.survival import Survival, survival

F64 = npt.NDArray[np.float64]
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
RUNS = {0: 200, 16: 200, 64: 400}
"""By the user's texts: under 30 clusters intervals are bootstrapped, which is dear."""
_WORDS = (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)


class World:
    """Texts under an adapter: `own` texts with an effect of `size` nat a token, and 24 general ones."""

    def __init__(self, rng: np.random.Generator, *, own: int, size: float) -> None:
        """Draw the texts."""
        self.own = own
        n = own + 24
        tokens = rng.integers(16, 129, n)
        mean = np.where(np.arange(n) < own, size * rng.lognormal(-0.125, 0.5, n), 0.1 * size * rng.normal(size=n))
        spread = np.where(np.arange(n) < own, 1.5 * size, 0.3 * size)
        self.offsets = np.concatenate([[0], np.cumsum(tokens)])
        self.cluster = np.repeat(np.arange(n), tokens)
        self.names = [str(i) for i in self.cluster]
        effect = mean[self.cluster] + spread[self.cluster] * rng.standard_t(5, self.cluster.size)
        lam = np.array(SCALES)[:, None]
        self.grid: F64 = effect * lam + 0.15 * effect * lam * (1 - lam)

    def at(self, lam: float) -> F64:
        """Return log-probs at a scale."""
        k = min(int(np.searchsorted(SCALES, lam, side="right")) - 1, len(SCALES) - 2)
        share = (lam - SCALES[k]) / (SCALES[k + 1] - SCALES[k])
        return np.asarray(self.grid[k] + share * (self.grid[k + 1] - self.grid[k]))

    def left(self, share: float) -> F64:
        """Return log-probs with a share of the effect left."""
        return np.asarray(share * self.grid[SCALES.index(1.0)])

    def link(self, rng: np.random.Generator, seen: F64, *, noise: float, shift: float | None = None) -> F64:
        """Return what a link gives where it should give `seen`."""
        n = self.offsets.size - 1
        shared = 0.2 * noise * rng.normal(size=n)[self.cluster]
        loss = noise**2 / 2 if shift is None else shift
        return np.asarray(seen + noise * rng.standard_t(5, self.cluster.size) / 1.29 + shared - loss)

    def judged(self, observed: F64, *, bits: float, rng: np.random.Generator) -> tuple[Verdict, Survival]:
        """Return the verdict and the survival, which is judged on the user's texts where there are any."""
        tuned = self.grid[SCALES.index(1.0)]
        margin = margin_of(bits, floor=0.0, effect=float(tuned.mean()))
        sums = np.add.reduceat(observed - tuned, self.offsets[:-1])
        n = self.offsets.size - 1
        same = equivalence(sums, np.diff(self.offsets), [str(i) for i in range(n)], margin=margin)
        some = self.cluster < self.own if self.own else np.ones(self.cluster.size, dtype=np.bool_)
        names = [name for name, one in zip(self.names, some.tolist(), strict=True) if one]
        left = survival(SCALES, self.grid[:, some], observed[some], names, rng=rng)
        return decide(same, left, own=self.own > 0), left


def row(name: str, judged: Sequence[Verdict], *more: object) -> None:
    """Print a row of a table."""
    count = Counter(judged)
    shares = [f"{count[v] / len(judged):.3f}" for v in _WORDS]
    print(f"| {' | '.join([name, *shares, *map(str, more)])} |", flush=True)


def rates(*, own: int, size: float, share: float, noise: float, bits: float) -> list[Verdict]:
    """Return the verdicts of links with a share of the effect left, beside what their format does."""
    out = []
    for run in range(RUNS[own]):
        rng = stream(run, "rates", own, repr((size, share, noise, bits)))
        world = World(rng, own=own, size=size)
        out.append(world.judged(world.link(rng, world.left(share), noise=noise), bits=bits, rng=rng)[0])
    return out


def shifted(*, own: int, size: float, noise: float, bits: float) -> list[Verdict]:
    """Return the verdicts of links whose mean log-prob lies right on the margin."""
    out = []
    for run in range(RUNS[own]):
        rng = stream(run, "shifted", own, repr((size, noise, bits)))
        world = World(rng, own=own, size=size)
        edge = margin_of(bits, floor=0.0, effect=float(world.left(1.0).mean()))
        seen = world.link(rng, world.left(1.0), noise=noise, shift=edge)
        out.append(world.judged(seen, bits=bits, rng=rng)[0])
    return out


def coverage(*, own: int, size: float, lam: float, noise: float) -> dict[str, float]:
    """Return how often the intervals of survival and of the scale hold the truth."""
    hits: Counter[str] = Counter()
    for run in range(RUNS[own]):
        rng = stream(run, "coverage", own, repr((size, lam, noise)))
        world = World(rng, own=own, size=size)
        _, left = world.judged(world.link(rng, world.at(lam), noise=noise), bits=4.5, rng=rng)
        tuned = world.left(1.0)
        # At any scale the effect is the same but for its size, so this share is that of every token.
        truth = float(world.at(lam) @ tuned / (tuned @ tuned))
        assert left.low is not None and left.high is not None  # noqa: PT018 (one interval)
        assert left.lam_low is not None and left.lam_high is not None  # noqa: PT018 (one interval)
        hits["survival"] += left.low <= truth <= left.high
        hits["below"] += left.high < truth
        hits["lam"] += left.lam_low <= lam <= left.lam_high
    return {name: n / RUNS[own] for name, n in hits.items()}


def stops(n: int, gap: float) -> list[Verdict]:
    """Return the verdicts on `n` answers behind which the stop is less probable by `gap`."""
    out = []
    for run in range(400):
        rng = stream(run, "stops", n, repr(gap))
        tuned = rng.beta(8, 1.5, n)
        drop = gap * rng.gamma(1.0, 1.0, n) if gap else np.zeros(n)
        here = np.clip(tuned - drop + 0.02 * rng.normal(size=n), 1e-6, 1.0)
        both = np.log(np.stack([np.full(n, 0.1), tuned]))
        out.append(judge_stop(both, np.log(here), tuple(map(str, range(n)))).verdict)
    return out


FORMATS: tuple[tuple[str, float, float], ...] = (
    *(("fp32", 32, 0.0005), ("bf16", 16, 0.06)),
    *(("8 bits", 8.5, 0.08), ("4 bits", 4.5, 0.4)),
)
"""Name, bits and noise of a log-prob in nats."""


def links() -> None:
    """Print how links are judged."""
    print("| link | PASS | FAIL | INCONCLUSIVE |\n|---|---|---|---|")
    for own, (name, bits, noise), size in product(RUNS, FORMATS, (0.05, 0.3, 1.0)):
        judged = rates(own=own, size=size, share=1.0, noise=noise, bits=bits)
        row(f"whole, {name}, {own} + 24 texts, effect {size:g}", judged)
    for own, share in product(RUNS, (0.0, 0.5, 0.8, 0.9, 0.95, 1.1, 1.2)):
        judged = rates(own=own, size=0.3, share=share, noise=0.08, bits=8.5)
        row(f"{share:.0%} left, 8 bits, {own} + 24 texts, effect 0.3", judged)
    for own, (name, bits, noise) in product((0, 64), FORMATS[:3]):
        judged = shifted(own=own, size=0.05, noise=noise, bits=bits)
        row(f"mean on the margin, {name}, {own} + 24 texts", judged)


def intervals() -> None:
    """Print how often intervals hold the truth."""
    print("\n| texts | scale | noise | survival | survival under its truth | lam-hat |\n|---|---|---|---|---|---|")
    for own, lam, noise in product(RUNS, (0.0, 0.35, 0.9, 1.0), (0.08, 0.4)):
        found = coverage(own=own, size=0.3, lam=lam, noise=noise)
        held = [f"{found.get(name, 0.0):.3f}" for name in ("survival", "below", "lam")]
        print(f"| {own} + 24 | {lam:g} | {noise:g} | {' | '.join(held)} |", flush=True)


def main() -> None:
    """Print the tables."""
    links()
    intervals()
    print("\n| answers, drop of P(stop) | PASS | FAIL | INCONCLUSIVE |\n|---|---|---|---|")
    for n, gap in product((4, 8, 16, 64), (0.0, 0.05, 0.1, 0.3)):
        row(f"{n}, {gap:g}", stops(n, gap))


if __name__ == "__main__":
    main()
