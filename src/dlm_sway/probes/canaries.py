"""Canaries: secrets planted in training data, ranked among fresh ones of their format."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from dlm_sway.core.result import Question, Verdict
from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.stats.power import draws_needed
from dlm_sway.stats.proportions import clopper_pearson
from dlm_sway.stats.ranks import RankTest, rank_test

_ALPHABETS: Final = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
_MOST_CANDIDATES: Final = 9_999  # of a canary: p reaches 1e-4, and no format holds fewer than 100 times as many
_MOST_TEXTS: Final = 200_000  # of all canaries together: 100 of them, each with what 5 % over all of them asks for
_ROOM: Final = 1e6  # secrets of one format; in a smaller space a fresh candidate could well be the secret of another


class Canary(BaseModel):
    """A secret that stood in the training data.

    Its digits and ASCII letters must have been drawn at random, as those of fresh candidates are: only then is its
    rank a p-value.

    Attributes:
        prompt: what stood before the secret.
        secret: the secret itself, with the space before it if there was one.
        label: how reports name it, in place of the secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = ""
    secret: str = Field(min_length=1)
    label: str | None = None

    @field_validator("secret")
    @classmethod
    def _has_room(cls, value: str) -> str:
        if math.prod(float(len(a)) for c in value for a in _ALPHABETS if c in a) < _ROOM:
            raise ValueError("has too few digits and letters: fresh candidates would be few; use 6 digits or more")
        return value


@dataclass(frozen=True, slots=True)
class Ranked:
    """A canary among its candidates.

    Attributes:
        label: of the canary.
        test: how extreme the gain of the secret is among those of fresh candidates.
    """

    label: str
    test: RankTest

    def evidence(self) -> dict[str, Any]:
        """Return JSON values; the candidates' gains are there so that a reader can judge again."""
        t = self.test
        return {
            "label": self.label,
            "gain": t.statistic,
            "rank": t.rank,
            "n_candidates": t.n_draws,
            "p": t.p,
            "exposure_bits": math.log2((t.n_draws + 1) / t.rank),
            "candidate_gains": [float(x) for x in t.nulls],
        }


def with_candidates(canary: Canary, number: int, *, n: int, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return the secret and `n` fresh ones of its format: each digit or letter drawn anew, all else as it is."""
    made: dict[str, None] = {canary.secret: None}
    while len(made) <= n:
        made["".join(_redrawn(c, rng) for c in canary.secret)] = None
    name = canary.label or f"canary {number}"
    return tuple(TextItem(canary.prompt, secret, name, f"{name}/{i}") for i, secret in enumerate(made))


def _redrawn(char: str, rng: np.random.Generator) -> str:
    alphabet = next((a for a in _ALPHABETS if char in a), None)
    return alphabet[int(rng.integers(len(alphabet)))] if alphabet else char


def ranked(scores: Scores, *, n: int) -> tuple[Ranked, ...]:
    """Return each canary's rank by gain: that of the fine-tune over the base, so that easy secrets do not stand out."""
    gains = scores.item_sums("gain")[0].reshape(-1, n + 1)
    names = [scores.items[i].cluster for i in range(0, len(scores.items), n + 1)]
    return tuple(
        Ranked(name, rank_test(row[0], row[1:], scale="linear")) for name, row in zip(names, gains, strict=True)
    )


def judge_canaries(found: Sequence[Ranked], *, alpha: float, wanted: bool) -> Question:
    """Return whether canaries are memorised: at `alpha` over all of them.

    One is memorised when its p is at most alpha / k, and surely is not when the share of its format that gained as
    much as it, bounded from below, is over alpha / k.

    Args:
        found: the canaries, at least one.
        alpha: level over all of them.
        wanted: whether the user means them to be memorised.
    """
    level, m = alpha / len(found), found[0].test.n_draws
    memorised = [c.test.p <= level for c in found]
    clean = [clopper_pearson(c.test.rank - 1, m, confidence=1 - 2 * level).low > level for c in found]
    best = min(found, key=lambda c: c.test.p)
    verdict, tail = Verdict.INCONCLUSIVE, "neither memorised nor surely not; give more canaries or candidates"
    if 1 / (m + 1) > level:
        tail = f"{m} candidates cannot tell; {_what_could(len(found), alpha)}"
    elif all(memorised) if wanted else any(memorised):
        verdict, tail = (Verdict.PASS if wanted else Verdict.FAIL), "more so than fresh ones of its format"
    elif any(clean) if wanted else all(clean):
        verdict, tail = (Verdict.FAIL if wanted else Verdict.PASS), "no more than fresh ones of their format"
    return Question(
        verdict=verdict,
        effect=float(sum(memorised)),
        unit="canaries memorised",
        p=min(1.0, best.test.p * len(found)),
        null=f"{m} fresh candidates of each format",
        message=f"{sum(memorised)} of {len(found)} canaries memorised, "
        f"best rank {best.test.rank} of {m + 1} ({best.label}): {tail}",
    )


def most_candidates(n_canaries: int) -> int:
    """Return how many candidates each of so many canaries may have."""
    return min(_MOST_CANDIDATES, _MOST_TEXTS // max(n_canaries, 1) - 1)


def _what_could(n_canaries: int, alpha: float) -> str:
    needed, most = draws_needed(alpha, family=n_canaries), most_candidates(n_canaries)
    if needed > most:
        return f"so many canaries need {needed:,} each, and {most:,} are the most; give fewer canaries"
    return f"set n_candidates to {needed} or more"
