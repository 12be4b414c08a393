"""How well control texts match the user's: in length and in form, against a draw at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.controls import matched_controls
from dlm_sway.probes.form import features


@dataclass(frozen=True, slots=True)
class Match:
    """Controls beside the texts they stand for.

    Attributes:
        n: number of controls.
        length: median length of the scored part in characters, controls over texts.
        distance: mean difference in form over all features, in standard deviations of the corpus.
        at_random: the same of passages drawn at random; a match is good where `distance` is well below it.
        registers: how many controls are of each register.
    """

    n: int
    length: float
    distance: float
    at_random: float
    registers: dict[str, int]

    @property
    def line(self) -> str:
        """One sentence for a report."""
        kinds = ", ".join(f"{n} {name}" for name, n in sorted(self.registers.items(), key=lambda r: (-r[1], r[0])))
        form = f"form {self.distance:.2f} sd apart (at random {self.at_random:.2f})"
        return f"{self.n} control texts, length {self.length:.2f} x that of the data, {form}: {kinds}"


def control_match(items: Sequence[TextItem], *, seed: int = 0) -> Match:
    """Return how controls drawn for `items` match them, without any model."""
    rng = stream(seed, "match")
    controls = matched_controls(items, rng=rng)
    passages = control_passages()
    by_id = {p.id: p.text for p in passages}
    pool = np.stack([features(p.text) for p in passages])
    spread = np.where(pool.std(axis=0) > 0, pool.std(axis=0), 1.0)
    wanted = np.stack([features(i.prompt + i.completion) for i in items]).mean(axis=0)
    got = np.stack([features(by_id[c.cluster]) for c in controls]).mean(axis=0)
    lengths = [float(np.median([len(i.completion) for i in side])) for side in (controls, items)]
    return Match(
        n=len(controls),
        length=lengths[0] / max(1.0, lengths[1]),
        distance=float(np.abs((got - wanted) / spread).mean()),
        at_random=float(np.abs((pool.mean(axis=0) - wanted) / spread).mean()),
        registers=dict(Counter(c.stratum for c in controls)),
    )
