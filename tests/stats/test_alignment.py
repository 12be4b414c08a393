from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dlm_sway.adapters.nulls import rotate_output
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.alignment import rotation_draws, rotation_sd

SHAPES = [(12, 3), (40, 4), (6, 4), (3, 5), (2, 1), (5, 5)]


def made(d: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return B, a gradient G, and the singular values of H = G R^T."""
    rng = stream(d, "made", r)
    b, g = rng.standard_normal((2, d, r))
    upper = np.linalg.qr(b, mode="r")
    return b, g, np.linalg.svd(g @ upper.T, compute_uv=False)


@pytest.mark.parametrize(("d", "r"), SHAPES)
def test_draws_have_the_law_of_rotated_factors(d: int, r: int) -> None:
    """The draws that need no matrix of d_out rows against the rotations that the nulls themselves use."""
    b, g, spectrum = made(d, r)
    turned = [float(np.vdot(g, rotate_output(b.astype(np.float32), seed=1, draw=k, module="m"))) for k in range(2000)]
    drawn = rotation_draws([spectrum], [d], n_draws=4000, rng=stream(2, "draws"))[0]
    assert stats.ks_2samp(turned, drawn).pvalue > 0.01


@pytest.mark.parametrize(("d", "r"), SHAPES)
def test_the_closed_form_is_the_spread_of_the_draws(d: int, r: int) -> None:
    _, _, spectrum = made(d, r)
    (sd,) = rotation_sd([spectrum], [d])
    drawn = rotation_draws([spectrum], [d], n_draws=20_000, rng=stream(3, "draws"))[0]
    assert drawn.std() == pytest.approx(sd, rel=0.03)
    assert abs(drawn.mean()) < 4 * sd / np.sqrt(20_000)


def test_modules_are_independent_and_keep_their_order() -> None:
    spectra = [made(d, r)[2] for d, r in SHAPES]
    rows = [d for d, _ in SHAPES]
    draws = rotation_draws(spectra, rows, n_draws=20_000, rng=stream(4, "draws"))
    sd = rotation_sd(spectra, rows)
    assert draws.shape == (len(SHAPES), 20_000)
    assert draws.std(axis=1) == pytest.approx(sd, rel=0.05)
    assert draws.sum(axis=0).std() == pytest.approx(np.sqrt(sd @ sd), rel=0.05)


def test_a_factor_of_zeros_moves_nothing() -> None:
    assert rotation_sd([np.zeros(3)], [9]).tolist() == [0.0]
    assert not rotation_draws([np.zeros(3)], [9], n_draws=5, rng=stream(0, "zeros")).any()


@pytest.mark.parametrize(
    ("spectra", "rows"), [([], []), ([[1.0]], [1, 2]), ([[1.0, 1.0]], [1]), ([[-1.0]], [2]), ([[np.nan]], [2])]
)
def test_spectra_that_are_none_are_refused(spectra: list[list[float]], rows: list[int]) -> None:
    with pytest.raises(BadInputError, match="rotation_sd"):
        rotation_sd(spectra, rows)
    with pytest.raises(BadInputError, match="rotation_draws"):
        rotation_draws(spectra, rows, n_draws=3, rng=stream(0, "bad"))
