from __future__ import annotations

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.loss_curve import loss_curve


def losses(n: int = 200, *, fall: float = 1.0, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    t = np.linspace(0, 1, n)
    level = 2.0 - fall * (1 - np.exp(-5 * t))
    return np.exp(level + noise * np.random.default_rng(seed).standard_normal(n))


def test_start_end_and_noise_are_found() -> None:
    found = loss_curve(losses(1000))
    assert found.start == pytest.approx(np.exp(1.9), rel=0.1)
    assert found.end == pytest.approx(np.exp(1.0), rel=0.1)
    assert found.noise_sd == pytest.approx(0.1, rel=0.15)
    assert found.fall > 20 * found.fall_se
    assert found.spikes.size == 0


@pytest.mark.parametrize("at", [0, 1, 100, 198, 199])
def test_a_spike_is_found_wherever_it_stands_but_at_the_start(at: int) -> None:
    curve = losses()
    curve[at] *= 8
    assert loss_curve(curve).spikes.tolist() == ([at] if at else [])


def test_a_steep_fall_and_a_lasting_rise_are_no_spikes() -> None:
    steep = losses(noise=0.02) * np.where(np.arange(200) < 8, 20, 1)
    assert loss_curve(steep).spikes.size == 0
    risen = losses(noise=0.02) * np.where(np.arange(200) >= 150, 5, 1)
    found = loss_curve(risen)
    assert found.spikes.size == 0
    assert found.given_back == pytest.approx(np.log(5), rel=0.1)


def test_correlated_noise_widens_the_errors() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal(500)
    red = np.convolve(white, np.ones(4) / 2, mode="same")
    one, two = (loss_curve(np.exp(1 + 0.1 * e)) for e in (white, red))
    assert two.fall_se / two.noise_sd > 1.3 * one.fall_se / one.noise_sd


def test_a_scale_changes_levels_and_nothing_else_while_losses_are_positive() -> None:
    one, two = loss_curve(losses()), loss_curve(3 * losses())
    assert (two.start / one.start, two.fall) == (pytest.approx(3), pytest.approx(one.fall))
    below = loss_curve(losses() - 4)
    assert not below.logs
    assert below.start == pytest.approx(one.start - 4, abs=1e-3)


def test_a_constant_curve_has_no_noise_and_no_spikes() -> None:
    flat = loss_curve(np.full(30, 2.0))
    assert (flat.fall, flat.noise_sd, flat.spikes.size, flat.late_rise) == (0.0, 0.0, 0, 0.0)


def test_spikes_are_found_where_most_losses_are_equal() -> None:
    flat = np.full(100, 0.5)
    flat[20::20] = 8.0
    assert loss_curve(flat).spikes.tolist() == [20, 40, 60, 80]


def test_losses_rounded_to_few_digits_have_noise() -> None:
    rounded = np.round(0.02 + 0.004 * np.random.default_rng(0).standard_normal(200), 2)
    found = loss_curve(rounded)
    assert np.median(rounded) == 0.02
    assert found.noise_sd > 0.01
    assert found.fall_se > 0
    assert not found.spikes.size


@pytest.mark.parametrize(("values", "why"), [([1.0] * 14, "at least 15"), ([1.0] * 20 + [np.nan], "value 20 is nan")])
def test_too_few_points_or_numbers_that_are_none_are_refused(values: list[float], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        loss_curve(values)
