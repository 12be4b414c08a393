from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.jackknife import JackknifedRatio, growth_to_decide, jackknifed_ratio
from dlm_sway.stats.shares import share

Rows = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def _left_out(rows: Rows) -> Rows:
    """Return the sums of two columns of means, without a row at a time."""
    n = len(rows)
    return (rows.sum(axis=0) - rows) / (n - 1)


def _two(first: Rows, second: Rows) -> JackknifedRatio:
    """Return the ratio of means that both samples add to."""
    both = [first.mean(axis=0), second.mean(axis=0)]
    return jackknifed_ratio(both[0] + both[1], [_left_out(first) + both[1], both[0] + _left_out(second)])


def test_one_sample_is_fiellers_interval_of_a_share() -> None:
    rng = stream(0)
    rows = np.stack([1 + rng.standard_normal(14), 3 + rng.standard_normal(14)], axis=1)
    found, plain = jackknifed_ratio(rows.mean(axis=0), [_left_out(rows)]), share(rows[:, 0], rows[:, 1])
    assert (found.estimate, found.low, found.high) == pytest.approx((plain.estimate, plain.low, plain.high))
    assert found.df == 13
    assert found.p == pytest.approx(stats.ttest_1samp(rows[:, 0], 0.0, alternative="greater").pvalue)


def test_a_known_number_below_leaves_welchs_interval() -> None:
    rng = stream(1)
    first, second = (np.stack([rng.normal(0, s, n), np.full(n, 0.5)], axis=1) for s, n in ((1, 8), (3, 20)))
    found = _two(first, second)
    welch = stats.ttest_ind(first[:, 0], -second[:, 0], equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))
    assert math.hypot(*found.se_by_sample) == pytest.approx(found.se)


def test_it_covers_as_it_promises_when_both_samples_are_small() -> None:
    hits = []
    for run in range(600):
        rng = stream(run, "jackknife")
        first = np.stack([0.5 + rng.standard_normal(12), 1 + 0.4 * rng.standard_normal(12)], axis=1)
        second = np.stack([np.full(8, 0.5), 1 + 0.8 * rng.standard_normal(8)], axis=1)
        found = _two(first, second)
        hits.append(found.low is None or found.low < 0.5 < found.high)
    assert 0.93 < np.mean(hits) < 0.98


def test_a_number_below_that_may_be_nothing_has_no_interval() -> None:
    rows = np.array([[1.0, -1.0], [0.5, 1.2], [1.1, 0.1]])
    found = jackknifed_ratio(rows.mean(axis=0), [_left_out(rows)])
    assert (found.low, found.high) == (None, None)
    assert found.method.startswith("unbounded")
    nothing = jackknifed_ratio([1.0, 0.0], [_left_out(rows)])
    assert (nothing.estimate, nothing.se, nothing.se_by_sample) == (None, None, ())


def test_without_spread_the_interval_is_the_point() -> None:
    found = jackknifed_ratio([1.0, 2.0], [np.tile([1.0, 2.0], (4, 1))])
    assert (found.low, found.estimate, found.high, found.p) == (0.5, 0.5, 0.5, 0.0)
    assert jackknifed_ratio([0.0, 2.0], [np.tile([0.0, 2.0], (4, 1))]).p == 1.0


@pytest.mark.parametrize(("noisy", "growth"), [(0, (True, False)), (1, (False, True))])
def test_the_sample_that_is_noisy_is_the_one_to_enlarge(noisy: int, growth: tuple[bool, bool]) -> None:
    rng = stream(3)
    loud = np.stack([0.3 + rng.standard_normal(10), np.full(10, 1.0)], axis=1)
    quiet = np.stack([0.3 + 0.01 * rng.standard_normal(10), np.full(10, 1.0)], axis=1)
    found = _two(*((loud, quiet) if noisy == 0 else (quiet, loud)))
    assert found.low < 0 < found.high
    alone, both = growth_to_decide(found, 0.0)
    assert tuple(g is not None for g in alone) == growth
    assert alone[noisy] == pytest.approx(both, rel=0.01)
    larger = [np.tile(rows, (math.ceil(2 * both), 1)) for rows in ((loud, quiet) if noisy == 0 else (quiet, loud))]
    assert _two(*larger).low > 0


def test_at_the_minimum_no_sample_decides() -> None:
    rows = np.array([[1.0, 2.0], [0.0, 1.9], [2.0, 2.1]])
    found = jackknifed_ratio(rows.mean(axis=0), [_left_out(rows)])
    assert growth_to_decide(found, found.parts[0] / found.parts[1]) == ((None,), None)


@pytest.mark.parametrize(
    ("parts", "without"),
    [([1.0], [[[1.0, 1.0]] * 2]), ([1.0, 1.0], []), ([1.0, 1.0], [[[1.0, 1.0]]]), ([1.0, np.nan], [[[1.0, 1.0]] * 2])],
)
def test_what_is_no_jackknife_is_refused(parts: list[float], without: list[list[list[float]]]) -> None:
    with pytest.raises(BadInputError):
        jackknifed_ratio(parts, without)
