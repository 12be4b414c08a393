"""What is left of an effect: right for known mixtures, silent on noise, and refused where there is no effect."""

from __future__ import annotations

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.survival import Survival, survival

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def grid(n: int = 2000, *, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    base, effect = rng.standard_normal(n) - 3, rng.standard_normal(n)
    lam = np.array(SCALES)[:, None]
    return base + lam * effect + 0.1 * lam**2 * effect, [str(i // 20) for i in range(n)]


def of(observed: np.ndarray, made: tuple[np.ndarray, list[str]]) -> Survival:
    return survival(SCALES, made[0], observed, made[1], rng=np.random.default_rng(1))


@pytest.mark.parametrize("g", range(len(SCALES)))
def test_an_artefact_at_a_known_scale_is_found_there(g: int) -> None:
    made = grid()
    found = of(made[0][g], made)
    assert found.lam == pytest.approx(SCALES[g], abs=1e-6)
    assert found.unexplained == pytest.approx(0.0, abs=1e-9)


def test_noise_beside_the_effect_leaves_the_ratio_and_widens_the_interval() -> None:
    made = grid()
    noise = 0.5 * np.random.default_rng(2).standard_normal(made[0].shape[1])
    found = of(made[0][4] + noise, made)
    assert found.low is not None and found.high is not None  # noqa: PT018 (one interval)
    assert found.low < 1.0 < found.high
    assert found.high - found.low < 0.15
    assert found.unexplained > 0.1


def test_the_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        made = grid(600, seed=seed)
        noise = np.random.default_rng(seed + 1000).standard_normal(600)
        found = of(made[0][2] + noise, made)
        half, whole = made[0][2] - made[0][0], made[0][4] - made[0][0]
        truth = half @ whole / (whole @ whole)
        assert found.low is not None and found.high is not None  # noqa: PT018 (one interval)
        covered += found.low <= truth <= found.high
    assert covered >= 180


def test_what_a_format_takes_from_all_tokens_alike_is_no_lost_effect() -> None:
    made = grid()
    effect = made[0][4] - made[0][0]
    lifted = made[0] + np.array(SCALES)[:, None] * 0.5  # an adapter that raises all log-probs on average
    found = survival(SCALES, lifted, lifted[4] - 0.1, made[1], rng=np.random.default_rng(1))
    assert found.ratio == pytest.approx(1.0)
    assert found.lam == pytest.approx(1.0)
    assert found.unexplained == pytest.approx(0.0, abs=1e-9)
    assert found.shift == pytest.approx(-0.1)
    assert found.effect == pytest.approx(float(np.sqrt(((effect + 0.5) ** 2).mean())))


def test_noise_larger_than_the_effect_is_surely_beside_it() -> None:
    made = grid()
    noise = 3.0 * np.random.default_rng(2).standard_normal(made[0].shape[1])
    found = of(made[0][4] + noise, made)
    assert found.unexplained_low is not None and found.unexplained_high is not None  # noqa: PT018 (one interval)
    assert 1.0 < found.unexplained_low < found.unexplained < found.unexplained_high


def test_one_cluster_has_no_interval() -> None:
    made = grid(40)
    found = survival(SCALES, made[0], made[0][4], ["a"] * 40, rng=np.random.default_rng(0))
    assert (found.low, found.lam_low) == (None, None)
    assert found.ratio == pytest.approx(1.0)


@pytest.mark.parametrize("case", ["no effect", "same effect", "nan", "shape", "scales"])
def test_what_cannot_be_said_is_refused(case: str) -> None:
    made = grid(40)
    values, observed, scales = made[0].copy(), made[0][4].copy(), SCALES
    if case == "no effect":
        values[:] = values[0]
    elif case == "same effect":
        values[:] = values[0] + np.array(SCALES)[:, None]
    elif case == "nan":
        observed[3] = np.nan
    elif case == "shape":
        observed = observed[:-1]
    else:
        scales = SCALES[::-1]
    with pytest.raises(BadInputError, match=r"no effect|the same on every|not finite|do not agree|must ascend"):
        survival(scales, values, observed, made[1], rng=np.random.default_rng(0))
