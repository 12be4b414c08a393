"""When an effect is said to fade: how far it was read, how much is left, and of how many prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dlm_sway.core.result import Question, Verdict
from dlm_sway.probes.fade import Fading
from dlm_sway.stats.decay import decay

X = np.array([0.0, 256.0, 512.0, 1024.0])
SHORT = np.array([0.0, 32.0, 64.0, 128.0])


def judged(x: np.ndarray, table: np.ndarray, *, minimum: float = 512) -> Question:
    return Fading(decay(x, table), "tokens", minimum, f"behind {x[-1]:g}", "prompts", "read farther").question()


def curve(left: np.ndarray | list[float], n: int = 16, *, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Return float64[n_x, n]: prompts of unlike size along one curve, each a little off it."""
    rng = np.random.default_rng(seed)
    shape = (len(left), n)
    return np.exp(0.5 * rng.standard_normal(n)) * np.asarray(left)[:, None] * np.exp(noise * rng.standard_normal(shape))


def scattered(left: list[float], spread: float, n: int = 16) -> np.ndarray:
    """Return float64[n_x, n]: prompts that scatter around a curve which their sum follows to the digit."""
    noise = np.random.default_rng(0).uniform(-1, 1, (len(left), n))
    return np.asarray(left)[:, None] * (1 + spread * (noise - noise.mean(axis=1, keepdims=True)))


def fading(x: np.ndarray, half_life: float, **options: float) -> np.ndarray:
    return curve(np.exp2(-x / half_life), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "half_life", "minimum"), [(SHORT, 220.0, 512.0), (X, 1700.0, 4096.0), (X[:3], 450.0, 512.0)]
)
def test_a_half_life_that_is_surely_too_short_fails_however_much_is_left_at_the_end(
    x: np.ndarray, half_life: float, minimum: float
) -> None:
    claim = judged(x, fading(x, half_life, noise=0.02), minimum=minimum)
    assert claim.verdict is Verdict.FAIL
    assert f"it fades; a half-life of {minimum:g} tokens is asked for" in claim.message


def test_half_left_nearer_than_the_half_life_asked_for_decides_nothing() -> None:
    open_still = scattered([1.0, 1.0, 1.0, 1.0], 0.5)
    claim = judged(SHORT, open_still)
    assert claim.interval is not None
    assert claim.interval[0] > 0.5
    assert claim.verdict is Verdict.INCONCLUSIVE
    assert claim.message.endswith("that is too near to tell a half-life of 512 tokens; read farther")
    assert judged(SHORT, open_still, minimum=128).verdict is Verdict.PASS


def test_half_left_far_enough_away_passes() -> None:
    for x in (X, X[:3], np.array([0.0, 512.0])):
        assert judged(x, fading(x, math.inf, noise=0.2)).verdict is Verdict.PASS


def test_less_than_half_left_at_the_half_life_asked_for_fails_whatever_curve_is_fitted() -> None:
    plateau = judged(X, curve([1.0, 0.4, 0.4, 0.4]))
    assert plateau.verdict is Verdict.FAIL
    assert "it fades (0.40 is left at 512); a half-life of 512 tokens is asked for" in plateau.message
    back = judged(np.array([0.0, 100.0, 200.0, 300.0, 600.0]), curve([1.0, 0.1, 0.1, 0.1, 0.6]))
    assert back.verdict is Verdict.FAIL
    assert back.interval is not None
    assert back.interval[0] > 0.5


def test_two_distances_decide_only_what_they_show() -> None:
    near, far = np.array([0.0, 256.0]), np.array([0.0, 1024.0])
    assert judged(near, curve([1.0, 0.4])).verdict is Verdict.FAIL
    assert judged(far, curve([1.0, 0.7])).verdict is Verdict.PASS
    assert judged(near, curve([1.0, 0.7])).verdict is Verdict.INCONCLUSIVE
    lost = judged(far, curve([1.0, 0.4]))  # a half-life of 775 tokens, if it falls steadily
    assert lost.verdict is Verdict.INCONCLUSIVE
    assert "half is lost somewhere before; give a distance of 512 tokens too" in lost.message


def test_prompts_without_an_effect_are_no_witnesses() -> None:
    alone = np.zeros((4, 8))
    alone[:, 0] = 1.0, 0.97, 0.95, 0.9
    claim = judged(X, alone)
    assert (claim.verdict, claim.interval) == (Verdict.INCONCLUSIVE, None)
    assert "1 of 8 prompts show an effect and cannot decide; give at least 5 on which" in claim.message
    four = np.concatenate([fading(X, math.inf, n=4), np.zeros((4, 4))], axis=1)
    assert judged(X, four).verdict is Verdict.INCONCLUSIVE
    five = np.concatenate([fading(X, math.inf, n=5), np.zeros((4, 3))], axis=1)
    assert judged(X, five).verdict is Verdict.PASS


def test_an_effect_that_is_nearly_all_in_one_prompt_decides_nothing() -> None:
    table = fading(X, math.inf, noise=0.01)
    table[:, 0] *= 1000
    claim = judged(X, table)
    assert claim.verdict is Verdict.INCONCLUSIVE
    assert "nearly all of the effect is in a few of 16 prompts, which tell as much as 1.0 alike" in claim.message


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ([1.0, 0.75, 0.62, 0.56], "about 240 would"),  # over half, far away: more prompts show it
        ([1.0, 0.8, 0.45, 0.4], "about 207 would"),  # under half where the half-life is asked for
        ([1.0, 0.7, 0.55, 0.4], "about 64 would halve the doubt"),  # half is lost beyond it
    ],
)
def test_what_is_left_open_says_what_sample_would_tell(left: list[float], says: str) -> None:
    claim = judged(X, scattered(left, 0.9))
    assert claim.verdict is Verdict.INCONCLUSIVE
    assert "16 prompts do not decide; about" in claim.message
    assert claim.message.endswith(says)
