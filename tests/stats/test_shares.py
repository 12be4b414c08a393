from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.shares import share


def test_the_ends_are_the_ratios_that_a_t_test_just_accepts() -> None:
    rng = stream(0)
    whole = 2 + rng.standard_normal(12)
    part = 0.6 * whole + 0.3 * rng.standard_normal(12)
    found = share(part, whole)
    assert found.estimate == pytest.approx(part.sum() / whole.sum())
    for end in (found.low, found.high):
        assert stats.ttest_1samp(part - end * whole, 0.0).pvalue == pytest.approx(0.05, rel=1e-6)


def test_it_covers_as_it_promises() -> None:
    hits = []
    for run in range(400):
        rng = stream(run, "share")
        whole = 1 + 0.8 * rng.standard_normal(15)
        found = share(0.5 * whole + 0.4 * rng.standard_normal(15), whole)
        hits.append(found.low is not None and found.low < 0.5 < found.high)
    assert 0.92 < np.mean(hits) < 0.98


def test_a_whole_that_may_be_nothing_has_no_interval() -> None:
    found = share([1.0, -1.0, 0.5], [1.0, -1.2, 0.4])
    assert (found.low, found.high, found.method) == (None, None, "the whole may be 0")
    assert share([1.0, 2.0], [0.0, 0.0]).estimate is None


def test_one_cluster_has_an_estimate_and_no_interval() -> None:
    assert share([1.0, 2.0], [2.0, 4.0], ["a", "a"]).estimate == 0.5
    assert share([1.0, 2.0], [2.0, 4.0], ["a", "a"]).method == "too few clusters"


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(-10, 10), st.floats(0.5, 10)), min_size=2, max_size=8), factor=st.floats(0.1, 10)
)
def test_a_part_that_is_larger_has_a_larger_share(rows: list[tuple[float, float]], factor: float) -> None:
    part, whole = np.array(rows).T
    one, other = share(part, whole), share(factor * part, whole)
    assert other.estimate == pytest.approx(factor * one.estimate, abs=1e-9)
    if one.low is not None:
        assert one.low <= one.estimate + 1e-9
        assert one.high >= one.estimate - 1e-9
        assert other.low == pytest.approx(factor * one.low, abs=1e-6, rel=1e-6)


def test_all_of_it_is_a_share_of_one() -> None:
    found = share([1.0, 1.2, 1.1], [1.0, 1.2, 1.1])
    assert (found.low, found.estimate, found.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)


@pytest.mark.parametrize(("part", "whole"), [([1.0], [1.0, 2.0]), ([], []), ([np.nan], [1.0])])
def test_what_is_no_pair_is_refused(part: list[float], whole: list[float]) -> None:
    with pytest.raises(BadInputError):
        share(part, whole)
