"""Claims that an effect does not fade with distance: what `prompt_collapse` and the decay over turns share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dlm_sway.core.result import Question, Verdict, finite_or_none
from dlm_sway.probes.beyond import FEWEST
from dlm_sway.stats.decay import Decay
from dlm_sway.stats.power import MAX_CLUSTERS, clusters_for_bound, smallest_effect

HALF: Final = 0.5
_FEWEST_ALIKE: Final = 3.0  # an effect that is that of one or two has no spread that tells how sure it is


@dataclass(frozen=True, slots=True)
class Fading:
    """What a claim about fading is made of.

    Attributes:
        decay: what was measured.
        unit: of the distance, such as `tokens`.
        min_half_life: the shortest half-life worth a pass, in that unit.
        at: where the longest distance lies, such as `behind 1,024 tokens`.
        of: what varies, such as `prompts`.
        farther: what to give where the longest distance is under the half-life that is asked for.
    """

    decay: Decay
    unit: str
    min_half_life: float
    at: str
    of: str
    farther: str

    def question(self) -> Question:
        """Return the verdict: PASS when surely half is left far enough away, or the half-life is long enough."""
        d, verdict = self.decay, self._verdict()
        left = float(d.left[-1])
        interval = None if d.low is None or d.high is None else (float(d.low[-1]), float(d.high[-1]))
        return Question(
            verdict=verdict,
            effect=left,
            unit="of the effect left",
            interval=interval,
            null=f"half of it left at {self.min_half_life:g} {self.unit} or farther, or such a half-life",
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
        if d.low is None or d.n_telling < FEWEST or d.worth < _FEWEST_ALIKE:
            return Verdict.INCONCLUSIVE
        if self._gone or self._short:
            return Verdict.FAIL
        long = d.half_life_low is not None and d.half_life_low >= self.min_half_life
        # Half left nearer than that is what an effect shows that fades too fast, too.
        return Verdict.PASS if long or (self._far and d.low[-1] >= HALF) else Verdict.INCONCLUSIVE

    @property
    def _far(self) -> bool:
        return float(self.decay.x[-1]) >= self.min_half_life

    @property
    def _within(self) -> int:
        """Index of the longest distance that is not beyond the half-life asked for."""
        return int(np.flatnonzero(self.decay.x <= self.min_half_life)[-1])

    @property
    def _gone(self) -> bool:
        return self.decay.high is not None and bool(self.decay.high[self._within] < HALF)

    @property
    def _short(self) -> bool:
        longest = self.decay.half_life_high
        return longest is not None and longest < self.min_half_life

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
        d, asked = self.decay, f"a half-life of {self.min_half_life:g} {self.unit}"
        if verdict is Verdict.PASS:
            return "it does not fade"
        if verdict is Verdict.FAIL:
            there = f" ({d.left[self._within]:.2f} is left at {d.x[self._within]:g})" if not self._short else ""
            return f"it fades{there}; {asked} is asked for"
        if d.n_telling < FEWEST:
            return self._too_few()
        if d.worth < _FEWEST_ALIKE:
            few = f"nearly all of the effect is in a few of {d.n_units} {self.of}, which tell as much as {d.worth:.1f}"
            return f"{few} alike; give more on which the fine-tune differs"
        if not self._far:
            return f"that is too near to tell {asked}; {self.farther}"
        return self._sample()

    def _too_few(self) -> str:
        d = self.decay
        if d.n_telling == d.n_units:
            return f"{d.n_units} {self.of} cannot decide; give at least {FEWEST}, better 30"
        few = f"{d.n_telling} of {d.n_units} {self.of} show an effect and cannot decide"
        return f"{few}; give at least {FEWEST} on which the fine-tune differs, better 30"

    def _sample(self) -> str:
        d, n = self.decay, self.decay.n_units
        at = -1 if d.left[-1] > HALF else self._within
        if at == self._within and d.left[at] > HALF:  # half is lost beyond it: only the fitted half-life can decide
            if d.half_life is None:
                return f"half is lost somewhere before; give a distance of {self.min_half_life:g} {self.unit} too"
            return f"{n} {self.of} do not decide; about {4 * n:,} would halve the doubt"
        gap, se = abs(float(d.left[at]) - HALF), 0.0 if d.se is None else float(d.se[at])
        if se == 0 or gap < 0.01 * se:
            return f"{n} {self.of} do not decide: it lies at the minimum"
        needed = clusters_for_bound(se * n**0.5, gap, alpha=0.025)
        if needed > MAX_CLUSTERS:
            return f"{n} {self.of} do not decide, and no sensible number would"
        return f"{n} {self.of} do not decide; about {max(needed, n + 1):,} would"


def _length(value: float) -> str:
    return "no decay" if math.isinf(value) else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 (digits that a reader wants)
