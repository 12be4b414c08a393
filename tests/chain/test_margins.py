from __future__ import annotations

import pytest

from dlm_sway.chain.margins import bits_of, margin_of


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("float32", 32), ("bfloat16", 16), ("F16", 16), ("Q8_0", 8), ("Q4_K", 4), ("IQ2_XXS", 2), ("server", None)],
)
def test_the_bits_of_a_format_follow_from_its_name(dtype: str, bits: float | None) -> None:
    assert bits_of(dtype) == bits


def test_a_coarser_format_has_a_wider_margin() -> None:
    margins = [margin_of(bits, floor=0.0) for bits in (32, 16, 8.5, 6.6, 5.5, 4.5, 2.0)]
    assert margins == sorted(margins)
    assert margins[0] < margins[1] < margins[-2] < margins[-1]


def test_numerics_and_the_effect_itself_widen_it() -> None:
    assert margin_of(32, floor=0.01) == pytest.approx(0.1)
    assert margin_of(32, floor=0.0, effect=-2.0) == pytest.approx(0.205)
    assert margin_of(None, floor=0.0) == 0.02
