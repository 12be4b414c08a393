"""What gains are counted in: nats per token, or, where two models share no tokens, bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from dlm_sway.engine.ask import Scores

BYTES_PER_TOKEN: Final = 4
"""What a token of English text is counted as where a threshold or a length in tokens is needed in bytes."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of gain.

    Attributes:
        name: as reports have it.
        factor: of a sum in nats.
        per_token: what 1 nat/token is worth in it: what thresholds are multiplied by.
        length: positions that stand for a token.
    """

    name: str
    factor: float
    per_token: float
    length: int

    def of(self, scores: Scores) -> Scores:
        """Return the scores with gains and the base's log-probs in this unit."""
        if self.factor == 1.0:
            return scores
        values = {name: grid * self.factor if name == "gain" else grid for name, grid in scores.values.items()}
        return replace(scores, values=values, base_logprob=scores.base_logprob * self.factor)

    def positions(self, tokens: int | None) -> int | None:
        """Return how many positions stand for so many tokens; None, which is all, stays None."""
        return None if tokens is None else tokens * self.length

    def threshold(self, nats_per_token: float) -> float:
        """Return what a threshold in nat/token is in this unit, to three digits."""
        return nats_per_token if self.per_token == 1.0 else float(f"{nats_per_token * self.per_token:.3g}")


PER_TOKEN: Final = Unit("nat/token", 1.0, 1.0, 1)
PER_BYTE: Final = Unit("bit/byte", 1 / math.log(2), 1 / (BYTES_PER_TOKEN * math.log(2)), BYTES_PER_TOKEN)
