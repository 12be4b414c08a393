import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlm_sway.adapters.nulls import (
    gaussian_like,
    haar_columns,
    permute_magnitude,
    rotate_output,
    rotate_rank,
    sign_flip,
    sign_permutation,
    signed_permutation,
)
from dlm_sway.core.errors import BadInputError

F32 = npt.NDArray[np.float32]
Factors = tuple[F32, F32]
Null = Callable[[F32, F32, int, int, str], F32]

NULLS: dict[str, Null] = {
    "rotation": lambda _, b, seed, draw, module: rotate_output(b, seed=seed, draw=draw, module=module),
    "sign flip": lambda a, b, seed, draw, module: sign_flip(a, b, seed=seed, draw=draw, module=module),
    "double rank": lambda a, b, seed, draw, module: rotate_rank(
        a, b, multiplier=2.0, seed=seed, draw=draw, module=module
    )[1],
    "magnitudes": lambda _, b, seed, draw, module: permute_magnitude(b[:, 0], seed=seed, draw=draw, module=module),
    "bias": lambda _, b, seed, draw, module: sign_permutation(b[:, 0], seed=seed, draw=draw, module=module),
    "gaussian": lambda _, b, seed, draw, module: gaussian_like(
        b.shape, std=0.02, seed=seed, draw=draw, module=module, part="B"
    ),
}
SIZE_KEEPING = ("rotation", "sign flip")
every_null = pytest.mark.parametrize("null", list(NULLS.values()), ids=list(NULLS))
size_keeping = pytest.mark.parametrize("null", [NULLS[name] for name in SIZE_KEEPING], ids=SIZE_KEEPING)


def random_factors(seed: int, *, d_out: int, d_in: int, r: int) -> Factors:
    # Rows of A of very unlike sizes: a trained A is nothing like an isotropic one.
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((r, d_in)) * 10.0 ** rng.uniform(-2, 1, size=(r, 1))
    b = rng.standard_normal((d_out, r)) * 10.0 ** rng.uniform(-2, 1, size=r)
    return a.astype(np.float32), b.astype(np.float32)


@st.composite
def factors(draw: st.DrawFn) -> Factors:
    d_out, d_in, r = draw(st.integers(1, 24)), draw(st.integers(1, 24)), draw(st.integers(1, 8))
    a, b = random_factors(draw(st.integers(0, 10_000)), d_out=d_out, d_in=d_in, r=r)
    if draw(st.booleans()):  # rank-deficient: one direction never trained, another one twice
        b[:, 0] = 0.0
        a[-1] = a[0]
    return a, b


def product(a: F32, b: F32) -> npt.NDArray[np.float64]:
    return b.astype(np.float64) @ a.astype(np.float64)


def singular_values(delta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.linalg.svd(delta, compute_uv=False)


def close(actual: npt.ArrayLike, expected: npt.ArrayLike, scale: float) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=1e-5 * scale)


any_seed = st.integers(0, 2**63)


@size_keeping
@given(pair=factors(), seed=any_seed)
@settings(deadline=None)
def test_keeps_the_singular_values(null: Null, pair: Factors, seed: int) -> None:
    a, b = pair
    real = singular_values(product(a, b))
    close(singular_values(product(a, null(a, b, seed, 0, "m"))), real, real[0])


@size_keeping
@given(pair=factors(), seed=any_seed)
@settings(deadline=None)
def test_keeps_the_norm_of_the_change_for_every_input(null: Null, pair: Factors, seed: int) -> None:
    # |(delta W) x| for all x is delta W^T delta W; one x is drawn as well, so that the claim stands as it is made.
    a, b = pair
    real, other = product(a, b), product(a, null(a, b, seed, 0, "m"))
    close(other.T @ other, real.T @ real, float(np.linalg.norm(real) ** 2))
    x = np.random.default_rng(seed).standard_normal(a.shape[1])
    close(np.linalg.norm(other @ x), np.linalg.norm(real @ x), float(np.linalg.norm(real) * np.linalg.norm(x)))


@size_keeping
@given(pair=factors(), seed=any_seed)
@settings(deadline=None)
def test_leaves_its_inputs_alone_and_answers_in_kind(null: Null, pair: Factors, seed: int) -> None:
    a, b = pair
    before = a.copy(), b.copy()
    out = null(a, b, seed, 0, "m")
    assert out.dtype == np.float32
    assert out.shape == b.shape
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


@every_null
@given(seed=any_seed, draw=st.integers(0, 1000), module=st.text(max_size=20))
@settings(deadline=None, max_examples=20)
def test_gives_the_same_bytes_on_every_call(null: Null, seed: int, draw: int, module: str) -> None:
    a, b = random_factors(1, d_out=24, d_in=12, r=8)
    assert null(a, b, seed, draw, module).tobytes() == null(a.copy(), b.copy(), seed, draw, module).tobytes()


@every_null
def test_differs_by_seed_by_draw_and_by_module(null: Null) -> None:
    a, b = random_factors(2, d_out=64, d_in=32, r=16)
    keys = [(0, 0, "q"), (1, 0, "q"), (0, 1, "q"), (0, 0, "k"), (1, 0, "k"), (0, 1, "k"), (10, 0, "q"), (1, 10, "q")]
    assert len({null(a, b, *key).tobytes() for key in keys}) == len(keys)


def test_the_parts_of_one_module_are_drawn_apart() -> None:
    # A rotation of B that moved with the permutation of DoRA's magnitudes would leave part of what was learned.
    ramp = np.arange(64, dtype=np.float32)
    magnitudes = permute_magnitude(ramp, seed=0, draw=0, module="m")
    assert not np.array_equal(magnitudes, np.abs(sign_permutation(ramp, seed=0, draw=0, module="m")))
    parts = [gaussian_like((4, 4), std=1.0, seed=0, draw=0, module="m", part=part).tobytes() for part in ("A", "B")]
    assert parts[0] != parts[1]


def test_haar_columns_are_orthonormal_at_every_shape() -> None:
    for d, r in ((1, 1), (5, 1), (7, 7), (40, 8), (3, 9)):
        q = haar_columns(np.random.default_rng(0), d, r)
        assert q.shape == (d, min(d, r))
        np.testing.assert_allclose(q.T @ q, np.eye(min(d, r)), atol=1e-12)


def test_haar_columns_have_the_first_two_moments_of_the_uniform_law() -> None:
    d, r, n = 6, 3, 4000
    rng = np.random.default_rng(11)
    q = np.stack([haar_columns(rng, d, r) for _ in range(n)])  # [n, d, r]
    # An entry has variance 1 / d and, squared, a variance below 3 / d^2: five standard errors allow for 54 entries.
    np.testing.assert_allclose(q.mean(axis=0), 0.0, atol=5 * np.sqrt(1 / d / n))
    np.testing.assert_allclose((q**2).mean(axis=0), 1 / d, atol=5 * np.sqrt(3 / d**2 / n))
    projection = (q @ q.transpose(0, 2, 1)).mean(axis=0)
    np.testing.assert_allclose(projection, np.eye(d) * r / d, atol=5 * np.sqrt(3 * r / d**2 / n))


def test_haar_columns_have_no_preferred_sign() -> None:
    # The QR of LAPACK alone has: the first entry of its first column is never positive.
    rng = np.random.default_rng(5)
    positive = sum(haar_columns(rng, 4, 4)[0, 0] > 0 for _ in range(2000))
    assert stats.binomtest(int(positive), 2000).pvalue > 0.001
    determinants = [np.linalg.det(haar_columns(rng, 3, 3)) for _ in range(400)]
    assert stats.binomtest(sum(d > 0 for d in determinants), 400).pvalue > 0.001


def test_rotating_twice_has_the_law_of_rotating_once() -> None:
    _, b = random_factors(3, d_out=6, d_in=1, r=3)

    def statistic(out: F32) -> float:
        return float(out[0] @ np.array([1.0, -2.0, 0.5]) + abs(out[3, 1]))

    once = [statistic(rotate_output(b, seed=1, draw=i, module="m")) for i in range(1500)]
    twice = [
        statistic(rotate_output(rotate_output(b, seed=2, draw=i, module="m"), seed=3, draw=i, module="m"))
        for i in range(1500)
    ]
    assert stats.ks_2samp(once, twice).pvalue > 0.01


def test_the_real_change_ranks_uniformly_among_its_rotations_when_it_is_noise() -> None:
    n_draws, n_adapters = 39, 400
    rng = np.random.default_rng(8)
    weights = rng.standard_normal((5, 2))

    def statistic(out: F32) -> float:
        return float(np.sum(weights * out) + np.max(np.abs(out)))

    ranks = np.zeros(n_adapters, dtype=np.int64)
    for i in range(n_adapters):
        b = rng.standard_normal((5, 2)).astype(np.float32)
        draws = [statistic(rotate_output(b, seed=i, draw=j, module="m")) for j in range(n_draws)]
        ranks[i] = sum(value >= statistic(b) for value in draws)
    counts = np.bincount(ranks // 4, minlength=10)  # 40 possible ranks in ten cells
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_planted_direction_stands_out_from_its_rotations() -> None:
    b = np.zeros((64, 2), dtype=np.float32)
    b[7, 0] = 1.0
    draws = [float(rotate_output(b, seed=0, draw=i, module="m")[7, 0]) for i in range(99)]
    assert max(draws) < 0.6 < b[7, 0]


def test_signs_of_the_triplets_are_all_that_a_sign_flip_changes() -> None:
    a, b = random_factors(4, d_out=20, d_in=15, r=5)
    u, s, vt = np.linalg.svd(product(a, b), full_matrices=False)
    seen = set()
    for draw in range(20):
        core = u.T @ product(a, sign_flip(a, b, seed=0, draw=draw, module="m")) @ vt.T
        ratio = np.diagonal(core)[:5] / s[:5]
        np.testing.assert_allclose(np.abs(ratio), 1.0, atol=1e-3)  # the smallest of five unlike values, in float32
        close(core - np.diag(np.diagonal(core)), 0.0, s[0])
        seen.add(tuple(np.sign(ratio)))
    assert len(seen) > 8


@given(pair=factors(), multiplier=st.sampled_from([0.25, 0.5, 0.75, 1.5, 2.0, 3.0]), seed=any_seed)
@settings(deadline=None)
def test_a_rank_null_has_the_rank_that_was_asked_for_and_keeps_a(pair: Factors, multiplier: float, seed: int) -> None:
    a, b = pair
    full = min(a.shape[0], a.shape[1], b.shape[0])
    count = max(1, round(full * multiplier))
    if count > b.shape[0]:
        with pytest.raises(BadInputError, match="directions"):
            rotate_rank(a, b, multiplier=multiplier, seed=seed, draw=0, module="m")
        return
    kept, turned = rotate_rank(a, b, multiplier=multiplier, seed=seed, draw=0, module="m")
    assert kept is a
    assert turned.dtype == np.float32
    assert np.linalg.matrix_rank(turned.astype(np.float64), tol=1e-6 * np.linalg.norm(b)) <= min(count, full)


def test_half_the_rank_keeps_every_other_singular_value() -> None:
    a, b = random_factors(5, d_out=30, d_in=25, r=6)
    real = singular_values(product(a, b))[:6]
    seen = set()
    for draw in range(20):
        values = singular_values(product(*rotate_rank(a, b, multiplier=0.5, seed=0, draw=draw, module="m")))[:4]
        start = int(abs(values[0] - real[0]) > 1e-4 * real[0])
        close(values[:3], real[start::2], real[0])
        assert values[3] < 1e-5 * real[0]
        seen.add(start)
    assert seen == {0, 1}  # a fixed start at the largest would keep more than half the energy in every draw


def test_double_rank_repeats_each_singular_value_and_adds_no_row() -> None:
    # Two orthonormal columns on one row of A add up to one column of length sqrt(2): energy doubles, rank cannot.
    a, b = random_factors(6, d_out=30, d_in=25, r=6)
    real = singular_values(product(a, b))
    doubled = singular_values(product(*rotate_rank(a, b, multiplier=2.0, seed=0, draw=0, module="m")))
    close(doubled, np.sqrt(2.0) * real, real[0])


@pytest.mark.parametrize("multiplier", [0.25, 0.5, 0.75, 1.0, 1.25, 2.0])
def test_the_energy_of_a_rank_null_is_proportional_to_its_multiplier(multiplier: float) -> None:
    a, b = random_factors(7, d_out=40, d_in=30, r=8)
    real = np.sum(product(a, b) ** 2)
    energy = [
        np.sum(product(*rotate_rank(a, b, multiplier=multiplier, seed=0, draw=i, module="m")) ** 2) for i in range(1500)
    ]
    error = np.std(energy) / np.sqrt(len(energy))
    assert abs(np.mean(energy) - multiplier * real) < 4 * error + 1e-5 * real


def test_a_rank_multiplier_of_one_is_the_rotation_itself() -> None:
    a, b = random_factors(8, d_out=3, d_in=9, r=5)  # more columns than outputs
    kept, turned = rotate_rank(a, b, multiplier=1.0, seed=4, draw=2, module="m")
    assert kept is a
    np.testing.assert_array_equal(turned, rotate_output(b, seed=4, draw=2, module="m"))


def test_a_rank_null_never_falls_below_one_direction() -> None:
    a, b = random_factors(9, d_out=10, d_in=10, r=1)
    _, turned = rotate_rank(a, b, multiplier=0.1, seed=0, draw=0, module="m")
    close(singular_values(product(a, turned)), singular_values(product(a, b)), float(np.linalg.norm(product(a, b))))


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_rank_multiplier_that_is_not_positive_and_finite(multiplier: float) -> None:
    a, b = random_factors(10, d_out=4, d_in=4, r=2)
    with pytest.raises(BadInputError, match="multiplier"):
        rotate_rank(a, b, multiplier=multiplier, seed=0, draw=0, module="m")


def test_an_untrained_module_stays_zero() -> None:
    a, b = random_factors(11, d_out=12, d_in=8, r=4)
    assert not rotate_output(np.zeros_like(b), seed=0, draw=0, module="m").any()
    assert not sign_flip(a, np.zeros_like(b), seed=0, draw=0, module="m").any()


def test_the_factors_of_a_convolution_are_turned_as_matrices() -> None:
    a, b = random_factors(12, d_out=10, d_in=18, r=4)
    conv_a, conv_b = a.reshape(4, 2, 3, 3), b.reshape(10, 4, 1, 1)
    for null in (NULLS["rotation"], NULLS["sign flip"], NULLS["double rank"]):
        turned = null(conv_a, conv_b, 0, 0, "m")
        assert turned.shape == conv_b.shape
        np.testing.assert_array_equal(turned.reshape(10, 4), null(a, b, 0, 0, "m"))


def test_permuted_magnitudes_are_the_same_numbers_in_another_order() -> None:
    delta = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    out = permute_magnitude(delta, seed=0, draw=0, module="m")
    assert out.dtype == np.float32
    assert not np.array_equal(out, delta)
    np.testing.assert_array_equal(np.sort(out), np.sort(delta))


def test_a_bias_keeps_its_absolute_values_and_moves_with_its_weight() -> None:
    weight = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    bias = weight[:, 0].copy()
    perm, sign = signed_permutation(50, seed=0, draw=3, module="m")
    out = sign_permutation(bias, seed=0, draw=3, module="m")
    assert out.dtype == np.float32
    np.testing.assert_array_equal(np.sort(np.abs(out)), np.sort(np.abs(bias)))
    np.testing.assert_array_equal(out, (sign[:, None] * weight[perm])[:, 0])


def test_a_signed_permutation_reaches_every_output_with_both_signs() -> None:
    draws = [signed_permutation(4, seed=0, draw=i, module="m") for i in range(800)]
    perm, sign = (np.stack(part) for part in zip(*draws, strict=True))
    assert perm.dtype == np.int64
    assert sign.dtype == np.float32
    assert all(sorted(row) == [0, 1, 2, 3] for row in perm)
    counts = [np.bincount(perm[:, i] * 2 + (sign[:, i] > 0), minlength=8) for i in range(4)]
    assert min(stats.chisquare(row).pvalue for row in counts) > 0.001


def test_gaussian_factors_have_the_std_that_was_asked_for() -> None:
    out = gaussian_like((200, 100), std=0.02, seed=0, draw=0, module="m", part="A")
    assert out.dtype == np.float32
    assert stats.kstest(out.ravel() / 0.02, "norm").pvalue > 0.001


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_refuses_a_std_that_is_negative_or_not_finite(std: float) -> None:
    with pytest.raises(BadInputError, match="standard deviation"):
        gaussian_like((2, 2), std=std, seed=0, draw=0, module="m", part="A")


@pytest.mark.parametrize("null", [NULLS["rotation"], NULLS["sign flip"], NULLS["double rank"]])
def test_refuses_factors_that_cannot_be_turned_and_names_the_module(null: Null) -> None:
    a, b = random_factors(13, d_out=6, d_in=6, r=2)
    for bad in (np.full_like(b, np.nan), np.full_like(b, np.inf), b[:0], b[:, 0]):
        with pytest.raises(BadInputError, match=r"layers\.3\.q_proj"):
            null(a, bad, 0, 0, "layers.3.q_proj")


def test_refuses_factors_whose_ranks_differ() -> None:
    a, _ = random_factors(14, d_out=6, d_in=6, r=2)
    _, b = random_factors(14, d_out=6, d_in=6, r=3)
    with pytest.raises(BadInputError, match="2 rows, but B has 3 columns"):
        sign_flip(a, b, seed=0, draw=0, module="m")


def test_a_draw_over_a_large_adapter_takes_less_than_a_second() -> None:
    _, b = random_factors(15, d_out=1536, d_in=1, r=8)
    start = time.perf_counter()
    for i in range(210):
        rotate_output(b, seed=0, draw=0, module=str(i))
    assert time.perf_counter() - start < 1.0
