"""Claims that an effect does not fade with distance: what `prompt_collapse` and the decay over turns share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from dlm_sway.core.result import Question, Verdict, finite_or_none
from dlm_sway.probes.beyond import FEWEST
from dlm_sway.stats.decay import Decay
from dlm_sway.stats.power import MAX_CLUSTERS, clusters_for_bound, smallest_effect

HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Fading:
    """What a claim about fading is made of.

    Attributes:
        decay: what was measured.
        unit: of the distance, such as `tokens`.
        min_half_life: the shortest half-life worth a pass, in that unit.
        at: where the longest distance lies, such as `behind 1,024 tokens`.
        of: what varies, such as `prompts`.
    """

    decay: Decay
    unit: str
    min_half_life: float
    at: str
    of: str

    def question(self) -> Question:
        """Return the verdict: PASS when surely half is left at the end, or the half-life is long enough."""
        d, verdict = self.decay, self._verdict()
        left = float(d.left[-1])
        interval = None if d.low is None or d.high is None else (float(d.low[-1]), float(d.high[-1]))
        return Question(
            verdict=verdict,
            effect=left,
            unit="of the effect left",
            interval=interval,
            null=f"half of it left, or a half-life of {self.min_half_life:g} {self.unit}",
            message=f"{self.at} {left:.2f} of the effect is left{self._half_life()}: {self._why(verdict)}",
        )

    def evidence(self) -> dict[str, Any]:
        """Return the curve, the half-life and what these inputs could have decided."""
        d = self.decay
        return {
            "curves": [
                {
                    "name": "effect left",
                    "x": d.x.tolist(),
                    "x_label": self.unit,
                    "y": d.left.tolist(),
                    "low": None if d.low is None else d.low.tolist(),
                    "high": None if d.high is None else d.high.tolist(),
                    "unit": "share of the effect at 0",
                    "minimum": HALF,
                }
            ],
            # Strict JSON has no infinity: None is "does not fall", and `half_life_known` tells it from "not fitted".
            "half_life": finite_or_none(d.half_life),
            "half_life_interval": [finite_or_none(d.half_life_low), finite_or_none(d.half_life_high)],
            "half_life_known": d.half_life is not None,
            "half_life_unit": self.unit,
            "interval_method": d.method,
            "smallest_decidable_effect": None if d.se is None else smallest_effect(float(d.se[-1])),
        }

    def score(self, claim: Question) -> float | None:
        """Map what is left to [0, 1]: a claim that fails is 0, one that is not decided is left out."""
        if claim.verdict is Verdict.PASS:
            return min(1.0, float(self.decay.left[-1]))
        return 0.0 if claim.verdict is Verdict.FAIL else None

    def _verdict(self) -> Verdict:
        d = self.decay
        if d.low is None or d.high is None or d.n_units < FEWEST:
            return Verdict.INCONCLUSIVE
        shortest, longest = d.half_life_low, d.half_life_high
        if d.low[-1] >= HALF or (shortest is not None and shortest >= self.min_half_life):
            return Verdict.PASS
        short = longest is None or longest < self.min_half_life
        return Verdict.FAIL if d.high[-1] < HALF and short else Verdict.INCONCLUSIVE

    def _half_life(self) -> str:
        d = self.decay
        if d.half_life is None:
            return ""
        ends = (d.half_life_low, d.half_life_high)
        between = "" if ends[0] is None or ends[1] is None else f" ({_length(ends[0])} to {_length(ends[1])})"
        if math.isinf(d.half_life):
            return f", and it does not fall{between}"
        return f", half-life {_length(d.half_life)} {self.unit}{between}"

    def _why(self, verdict: Verdict) -> str:
        if verdict is Verdict.PASS:
            return "it does not fade"
        if verdict is Verdict.FAIL:
            return f"it fades; a half-life of {self.min_half_life:g} {self.unit} is asked for"
        n, d = self.decay.n_units, self.decay
        if n < FEWEST or d.se is None:
            return f"{n} {self.of} cannot decide; give at least {FEWEST}, better 30"
        gap = abs(float(d.left[-1]) - HALF)
        if d.se[-1] == 0 or gap < 0.01 * float(d.se[-1]):
            return f"{n} {self.of} do not decide: it lies at the minimum"
        needed = clusters_for_bound(float(d.se[-1]) * n**0.5, gap, alpha=0.025)
        if needed > MAX_CLUSTERS:
            return f"{n} {self.of} do not decide, and no sensible number would"
        return f"{n} {self.of} do not decide; about {max(needed, n + 1):,} would"


def _length(value: float) -> str:
    return "no decay" if math.isinf(value) else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 (digits that a reader wants)
