from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.paired import mcnemar, sign_flip


def rng() -> np.random.Generator:
    return np.random.default_rng(31)


@given(st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=8))
@settings(deadline=None)
def test_the_exact_test_lists_every_flip(values: list[float]) -> None:
    flips = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    result = sign_flip(values, rng=rng())
    assert result.p == sum(f >= sum(values) for f in flips) / len(flips)
    assert (result.exact, result.n_flips) == (True, 2 ** len(values))


@given(st.lists(st.integers(-99, 99).map(lambda n: n / 7), min_size=1, max_size=10), st.floats(0.001, 1000))
@settings(deadline=None)
def test_p_depends_neither_on_order_nor_on_the_unit(values: list[float], unit: float) -> None:
    p = sign_flip(values, rng=rng()).p
    assert sign_flip([unit * v for v in reversed(values)], rng=rng()).p == p


def test_ties_made_by_rounding_count_against_us() -> None:
    # 0.1 + 0.2 - 0.3 is not 0 in floating point, but the flips that reach it are ties all the same.
    assert sign_flip([0.1, 0.2, -0.3], rng=rng()).p == sign_flip([1.0, 2.0, -3.0], rng=rng()).p


def test_all_zeros_say_nothing_and_one_value_says_half() -> None:
    assert sign_flip([0.0, 0.0, 0.0], rng=rng()).p == 1.0
    assert sign_flip([3.0], rng=rng()).p == 0.5
    assert sign_flip([-3.0], rng=rng()).p == 1.0


def test_four_values_cannot_reach_five_percent_and_five_can() -> None:
    assert sign_flip([1.0] * 4, rng=rng()).p == 1 / 16
    assert sign_flip([1.0] * 5, rng=rng()).p == 1 / 32


def test_seventeen_values_use_random_flips_close_to_the_exact_p() -> None:
    values = np.random.default_rng(32).normal(0.3, 1, 16)
    exact = sign_flip(values, rng=rng()).p
    sampled = sign_flip(np.append(values, 0.0), rng=rng())
    assert (sampled.exact, sampled.n_flips) == (False, 99_999)
    assert sampled.p == pytest.approx(exact, abs=0.01)


def test_random_flips_never_give_a_p_of_zero() -> None:
    assert sign_flip(np.ones(200), rng=rng()).p == 1e-5


def test_p_is_valid_and_nearly_uniform_for_symmetric_values() -> None:
    draws = np.random.default_rng(33).standard_t(2, (3_000, 10))
    p = np.array([sign_flip(row, rng=rng()).p for row in draws])
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_it_agrees_with_scipys_paired_permutation_test() -> None:
    values = np.random.default_rng(34).normal(0.4, 1, 9)
    theirs = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip(values, rng=rng()).p == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf]])
def test_sign_flip_refuses_what_is_no_number(bad: list[float]) -> None:
    with pytest.raises(BadInputError, match="sign_flip"):
        sign_flip(bad, rng=rng())


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_mcnemar_is_the_two_sided_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_refuses_what_is_no_count() -> None:
    with pytest.raises(BadInputError, match="mcnemar: b"):
        mcnemar(-1, 2)
    with pytest.raises(BadInputError, match="mcnemar: c"):
        mcnemar(1, 2.5)  # type: ignore[arg-type]
