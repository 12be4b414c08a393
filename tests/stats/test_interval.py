"""The interval engine against scipy, and its coverage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from dlm_sway.stats import _interval
from dlm_sway.stats._ratio import sums_by_cluster
from dlm_sway.stats.paired import gain, gain_difference

F64 = npt.NDArray[np.float64]


def test_the_bca_core_agrees_with_scipy_on_the_same_resamples() -> None:
    sample = np.random.default_rng(41).lognormal(0, 1, 15)
    theirs = stats.bootstrap((sample,), np.mean, method="BCa", n_resamples=4_999, rng=np.random.default_rng(1))
    influence = _interval._jackknife(sums_by_cluster(sample, np.ones(15), None, where="test"))
    low, high = _interval.bca_bounds(
        theirs.bootstrap_distribution,
        sample.mean(),
        _interval.acceleration([influence]),
        z=float(stats.norm.ppf(0.975)),
    )
    assert low == pytest.approx(theirs.confidence_interval.low, rel=1e-9)
    assert high == pytest.approx(theirs.confidence_interval.high, rel=1e-9)


def test_the_two_sample_bca_core_agrees_with_scipy_on_the_same_resamples() -> None:
    rng = np.random.default_rng(42)
    a, b = rng.lognormal(0, 1, 12), rng.normal(1, 1, 20)

    def gap(x: F64, y: F64, axis: int = -1) -> F64:
        return np.asarray(x.mean(axis=axis) - y.mean(axis=axis))

    theirs = stats.bootstrap((a, b), gap, method="BCa", n_resamples=4_999, rng=np.random.default_rng(1))
    influences = [
        _interval._jackknife(sums_by_cluster(x, np.ones(x.size), None, where="test")) * sign
        for x, sign in ((a, 1), (b, -1))
    ]
    low, high = _interval.bca_bounds(
        theirs.bootstrap_distribution,
        float(gap(a, b)),
        _interval.acceleration(influences),
        z=float(stats.norm.ppf(0.975)),
    )
    assert low == pytest.approx(theirs.confidence_interval.low, rel=1e-9)
    assert high == pytest.approx(theirs.confidence_interval.high, rel=1e-9)


def test_the_acceleration_formula_ends_at_the_range_where_it_would_turn_round() -> None:
    assert _interval._shifted_level(0.0, 0.3, z=5.0) == 1.0
    assert _interval._shifted_level(0.0, -0.3, z=-5.0) == 0.0


def items(rng: np.random.Generator, c: int, kind: str) -> tuple[F64, npt.NDArray[np.int64]]:
    """Clusters of unlike length whose gain per token is 0 on average."""
    tokens = rng.integers(20, 200, c)
    noise = {"normal": rng.normal(size=c), "skewed": rng.exponential(size=c) - 1.0, "heavy": rng.standard_t(4, c)}
    return 0.3 * noise[kind] * tokens, tokens


@pytest.mark.parametrize(
    ("c", "kind", "least"),
    [
        (3, "normal", 0.91),
        (5, "normal", 0.85),
        (12, "normal", 0.90),
        (12, "heavy", 0.88),
        (24, "skewed", 0.87),
        (40, "normal", 0.925),
        (100, "skewed", 0.91),
    ],
)
def test_intervals_cover_close_to_their_level(c: int, kind: str, least: float) -> None:
    rng = np.random.default_rng(43)
    runs, covered = 300, 0
    for _ in range(runs):
        found = gain(*items(rng, c, kind), rng=rng)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    # `least` leaves two to four standard errors of these runs under the coverage in docs/statistics/simulations.md.
    assert least <= covered / runs <= 0.99


def test_intervals_of_differences_cover_close_to_their_level() -> None:
    rng = np.random.default_rng(44)
    for (c, k), least in {(40, 60): 0.90, (12, 50): 0.87, (3, 50): 0.86}.items():
        covered = 0
        for _ in range(160):
            a, b = items(rng, c, "normal"), items(rng, k, "normal")
            found = gain_difference(*a, None, *b, None, rng=rng)
            assert found.low is not None
            assert found.high is not None
            covered += found.low <= 0 <= found.high
        assert covered / 160 >= least, (c, k)


def test_the_corrected_level_widens_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(45)
    sums = (sums_by_cluster(*items(rng, 6, "normal"), None, where="test"),)
    found = _interval.bounds(sums, tail=0.025, rng=np.random.default_rng(0))
    plain = _interval._bca(sums, z=1.96, rng=np.random.default_rng(0))
    assert found.low is not None
    assert found.high is not None
    assert found.low < plain[0] < plain[1] < found.high


def test_many_clusters_beside_few_are_resampled_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = (sums_by_cluster(*items(np.random.default_rng(46), 9, "normal"), None, where="test"),)
    whole = _interval.bounds(sums, tail=0.025, rng=np.random.default_rng(0))
    monkeypatch.setattr(_interval, "_BATCH_ELEMENTS", 1000)
    assert _interval.bounds(sums, tail=0.025, rng=np.random.default_rng(0)) == whole
