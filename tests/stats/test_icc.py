from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.icc import MAX_VALUES, group_test, values_needed

LABELS = [str(i % 5) for i in range(40)]


def values(between: float, *, seed: int, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return between * rng.standard_normal(5)[np.arange(n) % 5] + rng.standard_normal(n)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_formula_of_shrout_and_fleiss() -> None:
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    found = group_test(ratings.ravel(), [str(i) for i in range(6) for _ in range(4)], rng=rng())
    assert found.icc == pytest.approx(0.17, abs=0.005)  # their table 4, ICC(1,1)


def test_it_is_zero_by_chance_and_p_is_uniform() -> None:
    found = [group_test(values(0.0, seed=s), LABELS, rng=rng()) for s in range(120)]
    assert np.mean([f.icc for f in found]) == pytest.approx(0.0, abs=0.03)
    assert found[0].chance_mean == pytest.approx(0.0, abs=0.02)
    assert 0.01 <= np.mean([f.p <= 0.1 for f in found]) <= 0.19
    assert min(f.icc for f in found if f.icc is not None) < 0


def test_a_difference_between_groups_is_found_within_its_interval() -> None:
    found = group_test(values(2.0, seed=1), LABELS, rng=rng())
    assert found.p == pytest.approx(1e-4)
    assert found.icc is not None
    assert found.low is not None
    assert found.high is not None
    assert 0.1 < found.low < found.icc < found.high < 1
    assert found.icc > found.chance_high


def test_scale_shift_and_names_change_nothing() -> None:
    y = values(1.0, seed=2)
    one, two = group_test(y, LABELS, rng=rng()), group_test(3 - 7 * y, [f"g{x}" for x in LABELS], rng=rng())
    assert (one.icc, one.low, one.p) == (pytest.approx(two.icc), pytest.approx(two.low), two.p)


def test_degenerate_values_have_a_defined_answer() -> None:
    flat = group_test(np.full(40, 0.1), LABELS, rng=rng())
    assert (flat.icc, flat.p, flat.high) == (None, 1.0, None)
    apart = group_test([1.0, 1.0, 2.0, 2.0], ["a", "a", "b", "b"], rng=rng())
    assert (apart.icc, apart.low, apart.high) == (pytest.approx(1.0), 1.0, 1.0)
    uneven = group_test([1.0, 3.0, 2.0, 5.0], ["a", "b", "b", "b"], rng=rng())
    assert uneven.n_groups == 2


@pytest.mark.parametrize(
    ("y", "labels", "why"),
    [
        ([1.0, 2.0], ["a"], "2 values and 1 labels"),
        ([1.0, 2.0], ["a", "a"], "2 values in 1 groups"),
        ([1.0, 2.0], ["a", "b"], "2 values in 2 groups"),
        ([1.0, np.nan, 2.0], ["a", "b", "b"], "value 1 is nan"),
        ([], [], "at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(y: list[float], labels: list[str], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        group_test(y, labels, rng=rng())


def test_as_many_values_as_are_needed_decide_and_one_fewer_do_not() -> None:
    for icc, minimum in ((0.3, 0.2), (0.05, 0.2), (-0.1, 0.1)):
        n = values_needed(icc, n_groups=5, minimum=minimum)
        f = 1 + n / 5 * icc / (1 - icc)
        if icc >= minimum:
            assert stats.f.sf(f, 4, n - 5) <= 0.05 < stats.f.sf(1 + (n - 1) / 5 * icc / (1 - icc), 4, n - 6)
        else:
            # At the share's upper bound the F that was seen is one of the smallest 2.5 %.
            assert stats.ncf.cdf(max(f, 0), 4, n - 5, 4 * n / 5 * minimum / (1 - minimum)) <= 0.025 + 1e-9


def test_clearer_differences_need_fewer_values_and_one_at_the_minimum_no_sensible_number() -> None:
    needed = [values_needed(icc, n_groups=5, minimum=0.2) for icc in (0.21, 0.3, 0.5, 0.9)]
    assert needed == sorted(needed, reverse=True)
    assert values_needed(0.2 - 1e-9, n_groups=5, minimum=0.2) == MAX_VALUES + 1
    assert values_needed(1.0, n_groups=5, minimum=0.2) == 6
