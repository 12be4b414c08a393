from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats.mmd import ENDED, TwoSample, aligned, two_sample


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def samples(probs: list[float], n: int, *, seed: int, prompts: int = 1, length: int = 4) -> list[np.ndarray]:
    """Draw `n` sequences a prompt, every position independent with the same probabilities."""
    draw = rng(seed)
    return [draw.choice(len(probs), size=(n, length), p=probs).astype(np.int64) for _ in range(prompts)]


def test_the_estimate_is_the_unbiased_one_of_gretton() -> None:
    x, y = samples([0.5, 0.3, 0.2], 5, seed=1)[0], samples([0.2, 0.3, 0.5], 4, seed=2)[0]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a == b).mean())

    xx = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    yy = sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    xy = sum(k(a, b) for a in x for b in y) / 20
    found = two_sample([x], [y], n_permutations=9, rng=rng())
    assert found.estimate == pytest.approx(xx + yy - 2 * xy)
    assert (*found.within, found.between) == pytest.approx((xx, yy, xy))


def test_it_estimates_the_squared_distance_of_the_distributions() -> None:
    p, q = [0.6, 0.3, 0.1], [0.3, 0.3, 0.4]
    found = two_sample(
        samples(p, 6, seed=3, prompts=400), samples(q, 6, seed=4, prompts=400), n_permutations=1, rng=rng()
    )
    assert found.estimate == pytest.approx(float(((np.array(p) - np.array(q)) ** 2).sum()), abs=0.02)
    assert found.per_prompt.mean() == pytest.approx(found.estimate)


def test_same_samplers_centre_on_zero_and_p_is_uniform() -> None:
    def one(seed: int) -> TwoSample:
        probs = [0.4, 0.3, 0.2, 0.1]
        x, y = (samples(probs, 4, seed=2 * seed + side, prompts=20, length=8) for side in (0, 1))
        return two_sample(x, y, n_permutations=199, rng=rng(seed))

    found = [one(seed) for seed in range(400)]
    assert np.mean([f.estimate for f in found]) == pytest.approx(0.0, abs=0.01)
    assert min(f.estimate for f in found) < 0
    for level in (0.05, 0.2, 0.5):
        assert np.mean([f.p <= level for f in found]) <= level + 3 * np.sqrt(level * (1 - level) / 400)
    assert np.mean([f.p <= 0.5 for f in found]) > 0.4


def test_a_difference_within_prompts_is_found_and_one_between_prompts_is_none() -> None:
    x, y = samples([0.8, 0.2], 6, seed=5, prompts=8), samples([0.2, 0.8], 6, seed=6, prompts=8)
    assert two_sample(x, y, n_permutations=999, rng=rng()).p == pytest.approx(1e-3)
    # Each prompt has an answer of its own, the same on both sides: nothing differs.
    told = [np.full((6, 4), i, dtype=np.int64) for i in range(8)]
    found = two_sample(told, told, n_permutations=999, rng=rng())
    assert (found.estimate, found.p, found.between) == (0.0, 1.0, 1.0)


def test_what_is_opposite_at_half_of_the_prompts_does_not_cancel() -> None:
    yes, no = samples([0.9, 0.1], 6, seed=7, prompts=4), samples([0.1, 0.9], 6, seed=8, prompts=4)
    assert two_sample([*yes, *no], [*no, *yes], n_permutations=999, rng=rng()).p == pytest.approx(1e-3)


def test_swapping_sides_or_renaming_symbols_changes_no_estimate() -> None:
    x, y = samples([0.5, 0.5], 5, seed=9, prompts=3), samples([0.3, 0.7], 5, seed=10, prompts=3)
    one = two_sample(x, y, n_permutations=99, rng=rng())
    two = two_sample([a + 7 for a in y], [a + 7 for a in x], n_permutations=99, rng=rng())
    assert two.estimate == pytest.approx(one.estimate)
    assert two.within == pytest.approx(one.within[::-1])


def test_the_same_generator_gives_the_same_p() -> None:
    x, y = samples([0.5, 0.5], 5, seed=11, prompts=3), samples([0.4, 0.6], 5, seed=12, prompts=3)
    one, two = (two_sample(x, y, n_permutations=99, rng=rng(1)) for _ in range(2))
    assert one.p == two.p
    np.testing.assert_array_equal(one.draws, two.draws)


@example(sizes=[(3, 2)], length=3, seed=4372)  # a share of -1e-17, when it was a difference
@given(
    st.lists(st.tuples(st.integers(2, 5), st.integers(2, 5)), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
)
def test_p_and_agreement_are_shares_for_any_input(sizes: list[tuple[int, int]], length: int, seed: int) -> None:
    draw = rng(seed)
    x = [draw.integers(0, 3, (n, length)) for n, _ in sizes]
    y = [draw.integers(0, 3, (m, length)) for _, m in sizes]
    found = two_sample(x, y, n_permutations=19, rng=draw)
    assert 1 / 20 <= found.p <= 1
    assert -2 <= found.estimate <= 2
    assert all(0 <= share <= 1 for share in (*found.within, found.between))
    assert found.draws.shape == (19,)


@given(st.lists(st.lists(st.integers(0, 300), max_size=9), max_size=5), st.integers(1, 6))
def test_alignment_cuts_and_pads(texts: list[list[int]], length: int) -> None:
    rows = aligned(texts, length=length)
    assert rows.shape == (len(texts), length)
    for row, text in zip(rows.tolist(), texts, strict=True):
        assert row == (text + [ENDED] * length)[:length]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], "needs the same prompts on both sides, got 0 and 0"),
        ([np.zeros((2, 3))], [], "got 1 and 0"),
        ([np.zeros((1, 3))], [np.zeros((2, 3))], "needs 2 samples of each side at each prompt, got 1"),
        ([np.zeros((2, 3))], [np.zeros((2, 4))], "one L for all"),
        ([np.zeros(3)], [np.zeros(3)], "one L for all"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: list[np.ndarray], second: list[np.ndarray], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        two_sample(first, second, rng=rng())
    with pytest.raises(BadInputError, match="negative symbol"):
        aligned([[-1]], length=2)
