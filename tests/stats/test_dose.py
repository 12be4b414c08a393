"""The advised scale: what decides it, and that noise alone does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.dose import Dose, Items, dose

LAM = np.array([0.25, 0.5, 0.75, 1.0, 1.25])
RISING = np.array([0.6, 1.1, 1.5, 1.8, 2.0])
PLATEAU = np.array([1.2, 1.9, 2.1, 2.14, 2.1])
AT_ITS_BEST = np.array([1.2, 1.7, 2.0, 2.1, 2.0])
PEAKED = np.array([1.5, 2.4, 2.3, 2.1, 1.7])
HARMLESS = np.zeros(5)
HARMFUL = np.array([-0.05, -0.11, 0.05, 0.26, 0.6])


def texts(curve: np.ndarray, n: int, *, seed: int, spread: float, noise: float, tokens: int = 40) -> Items:
    """Return items whose gain per token follows a curve, each off it as a whole and at each scale."""
    rng = stream(seed, "dose", n)
    off = np.outer(LAM, spread * rng.standard_normal(n)) + noise * LAM[:, None] * rng.standard_normal((5, n))
    return Items(tokens * (curve[:, None] + off), np.full(n, tokens))


def advised(
    gain: np.ndarray, harm: np.ndarray, *, n: int = 24, n_control: int = 40, seed: int = 0, **options: Any
) -> Dose:
    target = texts(gain, n, seed=seed, spread=0.3, noise=0.1)
    control = texts(-harm, n_control, seed=seed + 1, spread=0.06, noise=0.02)
    return dose(LAM, target, control, rng=stream(seed, "test"), **options)


def test_a_harmful_full_scale_gives_way_to_the_best_safe_one() -> None:
    found = advised(PLATEAU, HARMFUL)
    assert (found.lam, found.reason) == (0.5, "less harm")
    assert found.harm_change.high < 0
    assert found.kept.estimate == pytest.approx(1.9 / 2.14, abs=0.1)
    assert found.interval[0] <= 0.5 <= found.interval[1] < 1.0


def test_a_safe_full_scale_is_as_good_when_every_other_is_surely_no_better() -> None:
    found = advised(AT_ITS_BEST, HARMLESS)
    assert (found.lam, found.reason, found.gain_change) == (1.0, "full scale is as good", None)
    assert found.rival is None


def test_a_safe_full_scale_is_not_as_good_for_want_of_texts() -> None:
    found = advised(PLATEAU, HARMLESS)
    assert (found.lam, found.reason, found.gain_change) == (None, "undecided", None)
    assert found.rival is not None
    assert found.rival.lam in {0.75, 1.25}
    assert found.rival.change.low < 0.05 <= found.rival.change.high
    assert found.rival.n_to_decide > 24
    more = advised(PLATEAU, HARMLESS, n=found.rival.n_to_decide + 60)
    assert (more.lam, more.rival) == (1.0, None)


def test_a_scale_unsafe_or_worse_is_no_rival() -> None:
    assert advised(PLATEAU, HARMFUL, n_control=6).rival is None
    assert advised(-RISING, HARMLESS).rival is None
    assert advised(PLATEAU, HARMLESS, n=4).rival is None


def test_a_scale_that_looks_far_better_asks_for_the_texts_that_would_show_it() -> None:
    rng = stream(1, "half")
    off = 0.6 + rng.standard_normal(8)
    curve = np.stack([0.6 + 0 * off, 0.9 + 0 * off, 0.9 - off / 2, 0.9 - off, 0.9 - 1.3 * off])
    control = texts(HARMLESS, 40, seed=1, spread=0.0, noise=0.02)
    found = dose(LAM, Items(40 * curve, np.full(8, 40)), control, rng=stream(0))
    assert (found.lam, found.best, found.reason) == (None, 0.5, "undecided")
    assert found.rival.lam == 0.5
    assert found.rival.change.estimate == pytest.approx(off.mean())
    assert 8 < found.rival.n_to_decide < 200


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_a_full_scale_that_is_worse_by_what_counts_is_seldom_as_good(noise: float) -> None:
    """Half the scale is better by 0.05 nat a token, few texts or many: not to see it is no sign of sameness."""
    curve, control = np.array([0.9, 1.05, 1.02, 1.0, 0.9]), texts(HARMLESS, 40, seed=1, spread=0.0, noise=0.02)
    for n in (8, 40):
        found = [
            dose(LAM, texts(curve, n, seed=run, spread=0.3, noise=noise), control, n_resamples=2, rng=stream(run))
            for run in range(60)
        ]
        assert sum(d.lam == 1.0 for d in found) <= 0.05 * 60 + 3


def test_a_higher_gain_at_less_is_named() -> None:
    found = advised(PEAKED, HARMLESS)
    assert found.lam == 0.5
    assert found.reason == "more gain"
    assert found.gain_change.low > 0


def test_a_gain_that_still_rises_is_named() -> None:
    found = advised(RISING, HARMLESS)
    assert (found.lam, found.reason) == (1.25, "still rising")


def test_a_gain_that_rises_into_harm_is_not_followed() -> None:
    assert advised(RISING, np.array([0.0, 0.0, 0.0, 0.0, 0.5])).lam == 1.0


def test_harm_at_every_scale_leaves_none() -> None:
    found = advised(RISING, np.full(5, 0.5))
    assert (found.lam, found.reason, found.best) == (None, "never safe", None)
    assert found.support == {0.0: 1.0}


def test_no_gain_at_any_safe_scale_leaves_none() -> None:
    assert advised(-RISING, HARMLESS).reason == "no gain"


@pytest.mark.parametrize("first", [0.01, -0.001])
def test_a_full_scale_that_loses_is_not_as_good_as_any_other(first: float) -> None:
    control = texts(HARMLESS, 40, seed=1, spread=0.06, noise=0.02)
    little = texts(np.array([first, -0.02, -0.02, -0.03, -0.03]), 60, seed=0, spread=0.0, noise=0.05)
    found = dose(LAM, little, control, rng=stream(0, "test"))
    assert (found.lam, found.reason) == (None, "no gain")
    wild = texts(np.array([0.1, -0.1, -0.2, -0.4, -0.4]), 12, seed=0, spread=0.0, noise=0.8)
    unsure = dose(LAM, wild, control, rng=stream(0, "test"))
    assert unsure.gains[3] < 0 < unsure.gains.max()
    assert (unsure.lam, unsure.reason) == (None, "undecided")


def test_harm_that_is_not_decided_is_not_called_safe() -> None:
    found = advised(RISING, 0.06 * LAM, n_control=6)
    assert (found.lam, found.reason) == (None, "undecided")
    assert found.n_to_decide > 6


@pytest.mark.parametrize(("n", "n_control"), [(4, 40), (24, 4), (1, 1)])
def test_few_items_advise_nothing(n: int, n_control: int) -> None:
    found = advised(PLATEAU, HARMFUL, n=n, n_control=n_control)
    assert (found.lam, found.reason, found.interval) == (None, "undecided", None)


def test_noise_in_the_gains_seldom_moves_the_scale_of_a_safe_adapter() -> None:
    """The best of five noisy means differs from 1 four times in five; the advice must not."""
    flat = np.full(5, 1.0)
    moved = Counter(advised(flat, HARMLESS, n=20, seed=run, n_resamples=50).lam for run in range(0, 400, 2))
    assert sum(k for lam, k in moved.items() if lam not in {1.0, None}) <= 0.05 * 200 + 6


def test_a_harmful_scale_is_seldom_called_safe() -> None:
    """Harm at the margin itself, at every scale: the fixed sequence keeps the level that five tests would exceed."""
    at_margin = np.full(5, 0.05)
    named = Counter(advised(RISING, at_margin, seed=run, n_resamples=50).lam is not None for run in range(0, 400, 2))
    assert named[True] <= 0.05 * 200 + 6


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), harm=st.floats(0.0, 0.5), n=st.integers(5, 12))
def test_what_is_advised_is_always_safe_and_gains(seed: int, harm: float, n: int) -> None:
    found = advised(PEAKED, harm * LAM**2, n=n, n_control=12, seed=seed, n_resamples=50)
    assert sum(found.support.values()) == pytest.approx(1.0)
    if found.lam is not None:
        at = LAM.tolist().index(found.lam)
        assert all(h.decision == "within" for h in found.harms[: at + 1])
        assert found.gains[at] > 0


def test_the_order_of_items_does_not_matter() -> None:
    target = texts(PEAKED, 40, seed=0, spread=0.3, noise=0.1)
    control = texts(-HARMFUL, 40, seed=1, spread=0.06, noise=0.02)
    turned = [Items(np.asarray(i.totals)[:, ::-1], np.asarray(i.tokens)[::-1]) for i in (target, control)]
    one, other = dose(LAM, target, control, rng=stream(0)), dose(LAM, *turned, rng=stream(0))
    assert (one.lam, one.reason) == (other.lam, other.reason)
    np.testing.assert_allclose(one.gains, other.gains)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"margin": -1.0}, "negative"),
        ({"margin": float("nan")}, "nan"),
        ({"worth": float("inf")}, "inf"),
        ({"alpha": 0.0}, "strictly between 0 and 1"),
        ({"n_resamples": 0}, "at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        advised(PLATEAU, HARMLESS, **change)


def test_values_that_are_not_finite_are_refused() -> None:
    broken = Items(np.full((5, 6), np.nan), np.ones(6))
    with pytest.raises(BadInputError, match="nan"):
        dose(LAM, broken, texts(HARMLESS, 6, seed=0, spread=0.1, noise=0.1), rng=stream(0))
