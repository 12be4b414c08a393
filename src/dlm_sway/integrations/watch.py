"""How far a training has come, by as many texts as its time allows: no model here, only the bookkeeping.

A watch is a look on the way and no verdict: there are no nulls, texts differ from look to look, and many looks raise
the odds that one of them is wrong. `sway check` gives the verdict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import finite_or_none
from dlm_sway.stats.paired import Estimate, gain

if TYPE_CHECKING:
    from dlm_sway.backends.base import Encoded

F64 = npt.NDArray[np.float64]

_ABOVE_FLOOR: Final = 10.0  # an effect counts from ten times what numerics alone can make
_FIRST: Final = 8  # texts of both sorts that a look has at least: four of each make an interval
_FLOOR_ROWS: Final = 3  # that `begin` lets the model read: one alone, then two together
_CAUTION: Final = 0.9  # of its share that a look plans with, since no text takes just the time that was foreseen
_FORGET: Final = 0.7  # one slow text, such as the first on a GPU, does not set the pace for long


class Scorer(Protocol):
    """A model that scores texts as base or as fine-tune."""

    def __call__(self, texts: Sequence[Encoded], *, base: bool) -> list[F64]:
        """Return the log-prob of each scored token of each text."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one step; all in nat per token, NaN where the model gave no finite numbers.

    Attributes:
        step: of the training.
        change: mean absolute change of a target token's log-prob, base against fine-tune.
        floor: what numerics alone change.
        gain: on target texts.
        harm: loss on other texts.
        seconds: that the look took.
        overhead: time of all looks so far, as a share of the training's own.
    """

    step: int
    change: float
    floor: float
    gain: Estimate
    harm: Estimate
    seconds: float
    overhead: float

    @property
    def moved(self) -> bool:
        """Whether the adapter changes what the model says by more than numerics could."""
        return self.change > _ABOVE_FLOOR * self.floor

    @property
    def finite(self) -> bool:
        """Whether all that the model said of the texts were numbers."""
        return all(math.isfinite(x) for x in (self.change, self.gain.estimate, self.harm.estimate))

    def harmed(self, margin: float) -> bool:
        """Return whether the whole interval of the harm lies over a margin; without an interval nothing does."""
        return self.harm.low is not None and self.harm.low > margin

    def numbers(self) -> dict[str, float]:
        """Return the finite numbers, as trackers take them."""
        found: Mapping[str, float | None] = {
            "change": self.change,
            "moved": float(self.moved) if self.finite else None,
            "gain": self.gain.estimate,
            "gain_low": self.gain.low,
            "gain_high": self.gain.high,
            "harm": self.harm.estimate,
            "harm_low": self.harm.low,
            "harm_high": self.harm.high,
            "overhead": self.overhead,
        }
        return {f"sway/watch/{k}": v for k, value in found.items() if (v := finite_or_none(value)) is not None}

    def line(self) -> str:
        """Return it on one line."""
        cost = f"{self.seconds:.2f} s, {self.overhead:.1%} overhead so far"
        if not self.finite:
            return f"sway: step {self.step}: the model gives log-probs that are not finite: NaN or infinite ({cost})"
        moved = f"changed {self.change:.3g} nat/token" if self.moved else "has not moved"
        said = f"gain {_shown(self.gain)} on target, harm {_shown(self.harm)} elsewhere, nat/token"
        return f"sway: step {self.step}: the adapter {moved}; {said} ({cost})"


@dataclass(slots=True)
class Watch:
    """Looks at a training, each on as many texts as fit its share of the time.

    Attributes:
        target: texts of the training's purpose.
        elsewhere: texts that should not become less probable.
        share: of the training's time that looks may take; None reads everything at each.
        seed: of the order that texts are read in, and of the intervals.
        clock: seconds.
        looks: what was seen so far.
        waited: looks that were left out, since the time for a few texts was not there yet.
    """

    target: Sequence[Encoded]
    elsewhere: Sequence[Encoded]
    share: float | None = 0.05
    seed: int = 0
    clock: Callable[[], float] = time.perf_counter
    looks: list[Look] = field(default_factory=list)
    waited: int = 0
    _base: dict[tuple[bool, int], F64] = field(default_factory=dict)
    _floor: float = 0.0
    _began: float = 0.0
    _spent: float = 0.0
    _speed: float = 0.0
    """Seconds a token of one pass, by the slowest text of late; first by the one that `begin` read."""
    _summing: float = 0.0
    """Seconds that the intervals took at the last look."""

    def begin(self, floor: Callable[[Encoded], float]) -> None:
        """Start the time, after the floor was measured on the shortest text."""
        began = self.clock()
        shortest = min(self.target, key=lambda text: len(text.ids))
        floor(shortest)  # the first pass of a process is slow, and would set a pace at which nothing fits
        warm = self.clock()
        self._floor = floor(shortest)
        self._speed = (self.clock() - warm) / (_FLOOR_ROWS * len(shortest.ids))
        self._spent = self.clock() - began
        self._began = began

    def look(self, step: int, score: Scorer) -> Look | None:
        """Return what there is to see, or None where there was no time for a few texts of each sort yet."""
        began = self.clock()
        order = list(self._order())
        if not self._affords(order[:_FIRST], began):
            self.waited += 1
            return None
        seen: dict[tuple[bool, int], F64] = {}
        for place, key in enumerate(order):
            if place >= _FIRST and not self._affords([key], began):
                break
            seen[key] = self._difference(key, score)
        scored = self.clock()
        found = self._summed(step, seen)
        self._summing = self.clock() - scored
        self._spent += (seconds := self.clock() - began)
        made = Look(
            step, *found, seconds=seconds, overhead=self._spent / max(self.clock() - self._began - self._spent, 1e-9)
        )
        self.looks.append(made)
        return made

    def _order(self) -> Iterator[tuple[bool, int]]:
        """Yield the texts to read: target and elsewhere in turn, each sort in an order of its own that stays."""
        rows = [
            [(is_target, int(i)) for i in stream(self.seed, "watch", str(is_target)).permutation(len(texts))]
            for is_target, texts in ((True, self.target), (False, self.elsewhere))
        ]
        return (key for key in chain.from_iterable(zip_longest(*rows)) if key is not None)

    def _affords(self, keys: Sequence[tuple[bool, int]], began: float) -> bool:
        if self.share is None:
            return True
        now = self.clock()
        trained = began - self._began - self._spent
        left = _CAUTION * self.share * trained - self._spent - (now - began)
        return left >= self._summing + self._speed * sum(self._tokens(key) for key in keys)

    def _tokens(self, key: tuple[bool, int]) -> int:
        return len(self._text(key).ids) * (1 if key in self._base else 2)

    def _text(self, key: tuple[bool, int]) -> Encoded:
        return (self.target if key[0] else self.elsewhere)[key[1]]

    def _difference(self, key: tuple[bool, int], score: Scorer) -> F64:
        """Return fine-tune minus base by token; the base is the same at every look, so it is asked once a text."""
        began, cost, text = self.clock(), self._tokens(key), self._text(key)
        if key not in self._base:
            (self._base[key],) = score([text], base=True)
        (tuned,) = score([text], base=False)
        self._speed = max((self.clock() - began) / cost, _FORGET * self._speed)
        return tuned - self._base[key]

    def _summed(self, step: int, seen: Mapping[tuple[bool, int], F64]) -> tuple[float, float, Estimate, Estimate]:
        target, elsewhere = ([d for (is_target, _), d in seen.items() if is_target is side] for side in (True, False))
        change = float(np.abs(np.concatenate(target)).mean())
        harm = _estimate([-d for d in elsewhere], stream(self.seed, "watch harm", step))
        return change, self._floor, _estimate(target, stream(self.seed, "watch gain", step)), harm


def _estimate(differences: Sequence[F64], rng: np.random.Generator) -> Estimate:
    if not all(np.isfinite(d).all() for d in differences):  # a training that diverges is told, and never ended by this
        n, tokens = len(differences), sum(d.size for d in differences)
        return Estimate(math.nan, None, None, n, n, tokens, None, "none: not finite", math.nan)
    return gain([float(d.sum()) for d in differences], [d.size for d in differences], rng=rng)


def _shown(found: Estimate) -> str:
    ends = "" if found.low is None or found.high is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.estimate:+.3f}{ends}"
