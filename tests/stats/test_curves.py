from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.curves import Shape, shape

LAM = np.array([0.25, 0.5, 0.75, 1.0, 1.25])
SHAPES = {
    "linear": LAM,
    "quadratic": LAM**2,
    "cubic": LAM**3,
    "saturated": 1 - np.exp(-12 * LAM),
    "step": 1 / (1 + np.exp(-60 * (LAM - 0.6))),
    "falling": np.array([0.3, 0.7, 1.0, 0.9, 0.5]),
}
GAINS = {
    "rising": LAM,
    "peak": np.array([1.0, 2.0, 2.2, 2.1, 1.9]),
    "crash beyond": np.array([1.0, 1.8, 2.0, 1.5, 0.4]),
    "crash": np.array([1.0, 1.2, 0.4, -1.6, -4.0]),
    "never": -LAM,
    "lost at full": np.array([0.5, 0.9, 1.0, 0.4, 0.8]),
    "late": np.array([0.1, 0.2, 0.3, 0.5, 1.2]),
}


def items(curve: np.ndarray, n: int, *, seed: int = 0, spread: float = 0.5, noise: float = 0.1) -> np.ndarray:
    """Return float64[L, n]: items of unlike size along one curve, each a little off it."""
    rng = stream(seed, "curves", n)
    size, off = np.exp(spread * rng.standard_normal(n)), noise * rng.standard_normal((len(curve), n))
    return curve[:, None] * size * np.exp(off)


def named(effect: np.ndarray, gain: np.ndarray | None = None, *, floor: float = 1e-6, seed: int = 0) -> Shape:
    tokens = None if gain is None else np.full(gain.shape[1], 20)
    return shape(LAM, effect, None, gain, tokens, floor=floor, rng=stream(seed, "shape"))


@pytest.mark.parametrize(
    ("curve", "name"),
    [
        ("linear", "healthy"), ("quadratic", "healthy"), ("cubic", "healthy"),
        ("saturated", "saturated"), ("step", "step"), ("falling", "overshoot-and-crash"),
    ],
)  # fmt: skip
def test_a_shape_has_its_name(curve: str, name: str) -> None:
    found = named(items(SHAPES[curve], 30))
    assert (found.name, found.decided) == (name, True)
    assert found.support[name] >= 0.9


@pytest.mark.parametrize(
    ("gain", "name", "at_full"),
    [
        ("rising", "healthy", False), ("peak", "healthy", False), ("crash beyond", "overshoot-and-crash", False),
        ("crash", "overshoot-and-crash", True), ("never", "overshoot-and-crash", True),
        ("lost at full", "overshoot-and-crash", True), ("late", "healthy", False),
    ],
)  # fmt: skip
def test_a_gain_that_is_lost_beyond_its_peak_is_a_crash(gain: str, name: str, at_full: bool) -> None:
    found = named(items(LAM**2, 20), 20 * items(GAINS[gain], 20, seed=1))
    assert (found.name, found.crashed_at_full) == (name, at_full)


def test_a_crash_at_full_scale_is_decided_by_the_resamples_and_not_by_one_number() -> None:
    rng = stream(0, "edge")
    curve = np.array([1.0, 1.8, 2.0, 0.99, 0.2])  # half of 2.0 is the edge
    open_still = named(items(LAM**2, 20), 20 * (curve[:, None] + 0.5 * rng.standard_normal((5, 20))))
    assert (open_still.name, open_still.decided) == ("overshoot-and-crash", True)
    assert open_still.at_full is not None
    assert 0.1 < open_still.at_full < 0.9
    assert not open_still.crashed_at_full


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.05, 2.0), gain=st.sampled_from(sorted(GAINS)))
def test_a_crash_at_full_scale_has_the_name_of_a_crash(seed: int, spread: float, gain: str) -> None:
    rng = stream(seed, "crash")
    found = named(items(LAM**2, 8), 20 * (GAINS[gain][:, None] + spread * rng.standard_normal((5, 8))))
    assert not found.crashed_at_full or (found.name == "overshoot-and-crash" and found.decided)


def test_an_effect_within_the_numeric_floor_is_flat() -> None:
    assert named(items(LAM**2, 20) * 1e-9, floor=1e-8).name == "flat"
    assert named(np.zeros((5, 20)), floor=0.0).name == "flat"


def test_the_exponent_near_zero_is_found_with_an_interval() -> None:
    found = named(items(SHAPES["quadratic"], 40)).features["exponent"]
    assert found.low < 2.0 < found.high
    assert found.high - found.low < 0.2


def test_few_items_name_a_shape_and_do_not_decide_it() -> None:
    found = named(items(LAM**2, 4))
    assert (found.name, found.decided, found.support, found.method) == ("healthy", False, {}, "too few clusters")
    assert found.features["growth"].low is None


def test_an_edge_between_two_names_is_not_decided() -> None:
    found = named(items(LAM**0.25, 12, noise=0.3))
    assert not found.decided


def test_many_items_of_one_cluster_are_one() -> None:
    effect = items(LAM**2, 20)
    assert shape(LAM, effect, ["a"] * 20, rng=stream(0)).n_clusters == 1


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(5, 12),
    factor=st.floats(1e-3, 1e3),
    curve=st.sampled_from(sorted(SHAPES)),
)
def test_the_name_does_not_depend_on_unit_or_order(seed: int, n: int, factor: float, curve: str) -> None:
    effect = items(SHAPES[curve], n, seed=seed)
    one = named(effect, floor=0.0)
    other = shape(LAM, factor * effect[:, ::-1], floor=0.0, rng=stream(1, "shape"))
    assert other.name == one.name
    assert sum(one.support.values()) == pytest.approx(1.0)
    for key, feature in one.features.items():
        assert feature.estimate is None or feature.estimate == pytest.approx(other.features[key].estimate, abs=1e-9)


def test_the_same_seed_gives_the_same_shape() -> None:
    assert named(items(LAM, 9), seed=3) == named(items(LAM, 9), seed=3)


@pytest.mark.parametrize(
    ("lambdas", "effect", "reason"),
    [
        ([0.5, 1.0], np.ones((2, 3)), "three or more rising"),
        ([0.5, 0.5, 1.0], np.ones((3, 3)), "three or more rising"),
        ([0.0, 0.5, 1.0], np.ones((3, 3)), "positive"),
        ([0.25, 0.5, 0.9], np.ones((3, 3)), "lack 1"),
        ([0.75, 1.0, 1.25], np.ones((3, 3)), "one up to 0.5"),
        ([0.25, 0.5, np.nan], np.ones((3, 3)), "rising positive"),
        ([0.25, 0.5, 1.0], np.ones((4, 3)), "do not belong to 3 scales"),
        ([0.25, 0.5, 1.0], np.ones(3), "do not belong"),
        ([0.25, 0.5, 1.0], np.full((3, 3), np.nan), "nan"),
        ([0.25, 0.5, 1.0], np.ones((3, 0)), "at least 1"),
    ],
)
def test_what_is_no_sweep_is_refused(lambdas: list[float], effect: np.ndarray, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        shape(lambdas, effect, rng=stream(0))
