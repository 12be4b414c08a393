"""How far passages are read to settle whether they lost: all registers in looks, then on in those that are in doubt.

A look takes passages from every register, so it has few of each, and the average over all of them is decided long
before any one register is. To rule out harm to every register for sure would take the whole corpus and more, and an
adapter that harms none would often stay open. So a register is read on while a weak bound of its own lies over the
margin; what is read so is not part of the average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.base import Env
from dlm_sway.probes.harm import FEWEST, by_stratum, critical_value
from dlm_sway.probes.inputs import clusters
from dlm_sway.stats.equivalence import NonInferiority, non_inferiority
from dlm_sway.stats.sequential import small_sample

DOUBT: Final = 0.7
"""One-sided level of the bound under which a register is not read on; it decides what is read, never a verdict."""


class Read:
    """Passages with what they lost.

    Attributes:
        items: the passages, n of them.
        loss: float64[n], base minus fine-tune, summed over the tokens of each.
        tokens: int64[n].
        clusters: what varies together.
        registers: the kind of text each is.
    """

    def __init__(self, parts: Sequence[Scores]) -> None:
        self.items = tuple(i for s in parts for i in s.items)
        self.loss: npt.NDArray[np.float64] = np.concatenate([-s.item_sums("gain")[0] for s in parts])
        self.tokens = np.concatenate([s.tokens for s in parts])
        self.clusters = clusters(self.items)
        self.registers = [i.stratum or "all" for i in self.items]

    def lost(self) -> dict[str, tuple[float, float]]:
        """Return the loss per token of each register and its standard error, the spread pooled over registers."""
        names, own, count = np.unique(self.registers, return_inverse=True, return_counts=True)
        tokens = np.bincount(own, self.tokens)
        rate = np.bincount(own, self.loss) / tokens
        residual = self.loss - rate[own] * self.tokens
        spread = np.sqrt((residual**2).sum() / max(1, len(own) - len(names)))
        errors = spread * np.sqrt(count) / tokens
        return {str(name): (float(r), float(e)) for name, r, e in zip(names, rate, errors, strict=True)}


@dataclass(frozen=True, slots=True)
class Reading:
    """A plan of reading, and what its passages decide.

    Attributes:
        passages: in an order whose beginnings are balanced over registers.
        ends: after how many passages to look at all registers together; the last is all of them.
        margin: the largest loss that counts as no harm, in the unit of the scores.
        env: the run's level and random streams.
        name: of the probe.
        reads_on: whether registers in doubt are read on.
    """

    passages: tuple[TextItem, ...]
    ends: tuple[int, ...]
    margin: float
    env: Env
    name: str
    reads_on: bool = True

    def looked(self, parts: Sequence[Scores]) -> int:
        """Return how many of these rounds, the first ones, were looks at all registers."""
        for n in range(1, len(parts) + 1):
            if n == len(self.ends) or self._settles(self.decide(Read(parts[:n]))):
                return n
        return len(parts)

    def after(self, parts: Sequence[Scores]) -> tuple[TextItem, ...]:
        """Return the passages to read after these rounds; none when nothing is missing."""
        if not parts:
            return self.passages[: self.ends[0]]
        n = self.looked(parts)
        whole = self.decide(Read(parts[:n]))
        if n < len(self.ends) and not self._settles(whole):
            return self.passages[self.ends[n - 1] : self.ends[n]]
        return self._in_doubt(Read(parts)) if self.reads_on and whole.decision == "within" else ()

    def decide(self, read: Read) -> NonInferiority:
        """Return the bound over these passages, at the level that Pocock's constant leaves to each look.

        Two one-sided questions are asked at every look (is the loss under the margin, is it over it); each keeps
        alpha.
        """
        z = critical_value(self.ends, alpha=self.env.alpha)
        n = len(set(read.clusters))
        return non_inferiority(
            read.loss,
            read.tokens,
            read.clusters,
            margin=self.margin,
            alpha=self.env.alpha,
            critical=small_sample(z, n - 1) if n > 1 else None,
            rng=self.env.rng(self.name, "bound"),
        )

    def by_register(self, read: Read) -> dict[str, NonInferiority]:
        """Return the loss of each register with bounds that hold for all of them together."""
        return by_stratum(
            read.loss,
            read.tokens,
            read.clusters,
            read.registers,
            margin=self.margin,
            alpha=self.env.alpha,
            rng=lambda name: self.env.rng(self.name, "register", name),
        )

    def open_registers(self, read: Read) -> dict[str, float]:
        """Return registers, with their losses, that surely lost something, and more than the margin by the estimate.

        Where nothing is read on, an early look at a few passages of each register is all there is; one of nine would
        often seem to have lost something by chance, so then it must be sure over all of them (Sidak).
        """
        names = np.array(read.registers)
        alpha = self.env.alpha if self.reads_on else 1 - (1 - self.env.alpha) ** (1 / len(set(read.registers)))
        found: dict[str, float] = {}
        for name, (lost, _) in read.lost().items():
            mask = names == name
            if lost > self.margin and self._surely_lost(read, mask, name, alpha=alpha):
                found[name] = lost
        return found

    def _surely_lost(self, read: Read, mask: npt.NDArray[np.bool_], name: str, *, alpha: float) -> bool:
        own = [c for c, is_own in zip(read.clusters, mask, strict=True) if is_own]
        rng = self.env.rng(self.name, "open", name)
        alone = non_inferiority(read.loss[mask], read.tokens[mask], own, margin=self.margin, alpha=alpha, rng=rng)
        return alone.lower is not None and alone.lower > 0

    def _settles(self, whole: NonInferiority) -> bool:
        """Return whether more looks at all registers can change no verdict."""
        return whole.decision == "outside" or (whole.decision == "within" and whole.n_clusters >= FEWEST)

    def _in_doubt(self, read: Read) -> tuple[TextItem, ...]:
        """Return as many more passages of each register in doubt as were read of it."""
        z = float(special.ndtri(DOUBT))
        more: list[TextItem] = []
        for name, (lost, error) in read.lost().items():
            if lost + z * error > self.margin:
                own = [i for i in self.passages if (i.stratum or "all") == name]
                done = read.registers.count(name)  # a register's passages are read in their order, by looks and here
                more += own[done : 2 * done]
        return tuple(more)
