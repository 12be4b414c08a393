"""Where rotation nulls are drawn: at the scale lam* where a divergence has not saturated, on a part of the texts.

An adapter and its nulls at full scale may all have broken the model, and then tell nothing of each other. At lam* they
are compared where the response is still smooth. Probes that ask about the same texts choose the same parts and the
same scale, so that one pass answers them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from dlm_sway.engine.ask import Ask, Position, Scores, TextItem
from dlm_sway.probes.base import Env
from dlm_sway.probes.inputs import subset

PILOT_LAM: Final = 0.25
PILOT_TOKENS: Final = 64
PILOT_DRAWS: Final = 5
CUT: Final = 32
"""Tokens of an item that nulls see: more items beat longer ones."""
TARGET_KL: Final = 0.07
"""nat; the middle of the 0.05-0.1 where a divergence still grows with the square of the scale."""


def pilot_ask(items: Sequence[TextItem], env: Env, *, position: Position = "completion") -> Ask:
    """Return what finds lam*: a few tokens under rotations of its own, well below full scale.

    These draws are in no test, so lam* does not depend on the adapter nor on the nulls that it is ranked among: given
    lam*, they are as exchangeable as before (docs/statistics/argument.md).
    """
    few = subset(items, tokens=PILOT_TOKENS, cut=CUT, rng=env.rng("nulls", "pilot"))
    return Ask(few, env.pilots(PILOT_DRAWS, PILOT_LAM), frozenset({"kl"}), position, env.format, max_tokens=CUT)


def lam_star(pilot: Scores) -> float:
    """Return the scale <= 1 at which the median KL of the pilot's rotations is about 0.07 nat, by KL ~ lam^2."""
    median = float(np.median(pilot.per_token("kl")))
    if not np.isfinite(median) or median <= 0:
        return 1.0
    return float(min(1.0, round(PILOT_LAM * (TARGET_KL / median) ** 0.5, 3) or 0.001))


def seen_by_nulls(items: Sequence[TextItem], env: Env, *, tokens: int) -> tuple[TextItem, ...]:
    """Return the items whose first `CUT` tokens each null sees, about `tokens` in all; the same for every probe."""
    return subset(items, tokens=tokens, cut=CUT, rng=env.rng("nulls"))
