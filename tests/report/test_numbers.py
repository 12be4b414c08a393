from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.report.numbers import effect, figure, interval, p_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5314, "0.531"),
        (7.7, "7.70"),
        (77.04, "77.0"),
        (1234.5, "1,234"),
        (0.0123, "0.0123"),
        (-0.01, "-0.0100"),
        (3.2e-7, "3.2e-07"),
        (2.5e7, "2.5e+07"),
        (math.nan, ""),
        (math.inf, ""),
    ],
)
def test_a_figure_has_three_digits_that_mean_something(value: float, text: str) -> None:
    assert figure(value) == text


def test_figures_side_by_side_share_their_decimals() -> None:
    assert figure(0.0004, like=(0.61,)) == "0.000"
    assert figure(-0.0004, like=(0.61,)) == "0.000"
    assert figure(0.1, like=(20.0, math.nan), signed=True) == "+0.1"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (210, "tensors", "210 tensors"),
        (0.0, "nat", "0 nat"),
        (0.25, None, "0.250"),
        (None, "nat", ""),
        (math.nan, "x", ""),
    ],
)
def test_an_effect_carries_its_unit_and_a_count_no_decimals(value: float | None, unit: str | None, text: str) -> None:
    assert effect(value, unit) == text


def test_a_signed_count_shows_its_sign_but_zero_has_none() -> None:
    assert effect(2.0, "nat", signed=True) == "+2 nat"
    assert effect(0.0, "nat", signed=True) == "0 nat"


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((0.48, 0.602), "[0.480, 0.602]"),
        ((-math.inf, 0.03), "at most 0.0300"),
        ((0.03, math.inf), "at least 0.0300"),
        ((-math.inf, math.inf), ""),
        ((math.nan, 1.0), ""),
        (None, ""),
    ],
)
def test_an_interval_open_on_one_side_is_a_bound(ends: tuple[float, float] | None, text: str) -> None:
    assert interval(ends) == text


@pytest.mark.parametrize(("p", "text"), [(0.025, "0.025"), (0.625, "0.62"), (1.0, "1"), (0.001, "0.001"), (None, "")])
def test_a_p_value_prints_as_it_is(p: float | None, text: str) -> None:
    assert p_value(p) == text


@settings(deadline=None)
@given(st.floats(-1e300, 1e300), st.booleans())
def test_a_figure_is_always_a_number_near_the_value(value: float, signed: bool) -> None:
    text = figure(value, signed=signed)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.051)
    assert not text.startswith(("-0.000000", "+0.000000"))


def test_a_share_is_shown_in_per_cent_with_its_interval() -> None:
    assert effect(0.0, "of spans", like=(-0.0406, 0.0406)) == "0.0% of spans"
    assert interval((-0.0406, 0.0406), unit="of spans", like=(0.0,)) == "[-4.1%, 4.1%]"
    assert effect(-0.007, "of facts", like=(-0.02, 0.006)) == "-0.7% of facts"
    assert interval((-math.inf, 0.004), unit="of facts") == "at most 0.40%"
    assert effect(0.5, "off") == "0.500 off"
