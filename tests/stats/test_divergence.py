from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.scoring import TokenDist
from dlm_sway.stats.divergence import entropy, js, kl, total_variation, with_other_bucket

F64 = npt.NDArray[np.float64]
# Logits with -inf among them: tokens that cannot occur.
LOGITS = st.one_of(st.floats(-30, 30), st.just(-math.inf))


def log_softmax(logits: F64) -> F64:
    return np.asarray(special.log_softmax(logits, axis=-1))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[F64, F64]:
    size = draw(st.integers(2, 12))
    both = [draw(hnp.arrays(np.float64, size, elements=LOGITS)) for _ in range(2)]
    for logits in both:
        logits[draw(st.integers(0, size - 1))] = 0.0
    return log_softmax(both[0]), log_softmax(both[1])


def uniform_on(support: list[int], vocab: int) -> F64:
    out = np.full(vocab, -math.inf)
    out[support] = -math.log(len(support))
    return out


@given(pairs())
@settings(deadline=None)
def test_divergences_agree_with_scipy(pair: tuple[F64, F64]) -> None:
    p, q = np.exp(pair[0]), np.exp(pair[1])
    assert float(kl(*pair)) == pytest.approx(float(stats.entropy(p, q)), abs=1e-12, rel=1e-9)
    with warnings.catch_warnings():
        # scipy takes the root of a tiny negative sum where the two are equal.
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs = jensenshannon(p, q) ** 2
    assert float(js(*pair)) == pytest.approx(0.0 if math.isnan(theirs) else theirs, abs=1e-12, rel=1e-9)
    assert float(total_variation(*pair)) == pytest.approx(0.5 * float(np.abs(p - q).sum()), abs=1e-12)
    assert float(entropy(pair[0])) == pytest.approx(float(stats.entropy(p)), abs=1e-12)


@given(pairs())
@settings(deadline=None)
def test_bounds_and_symmetry_hold(pair: tuple[F64, F64]) -> None:
    p, q = pair
    assert 0 <= float(js(p, q)) <= math.log(2)
    assert float(js(p, q)) == pytest.approx(float(js(q, p)), abs=1e-15)
    assert 0 <= float(total_variation(p, q)) <= 1
    assert float(kl(p, q)) >= 0
    assert 0 <= float(entropy(p)) <= math.log(p.size) + 1e-12
    # Pinsker and its counterpart for JS.
    assert 2 * float(total_variation(p, q)) ** 2 <= float(kl(p, q)) + 1e-12
    assert float(js(p, q)) <= math.log(2) * float(total_variation(p, q)) + 1e-12


@given(pairs(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_vocabulary_does_not_matter(pair: tuple[F64, F64], random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(pair[0].size)  # type: ignore[attr-defined]
    for measure in (kl, js, total_variation):
        assert float(measure(pair[0][order], pair[1][order])) == pytest.approx(float(measure(*pair)), abs=1e-13)


def test_disjoint_supports_are_as_far_apart_as_can_be() -> None:
    p, q = uniform_on([0, 1], 4), uniform_on([2, 3], 4)
    assert float(kl(p, q)) == math.inf
    assert float(js(p, q)) == math.log(2)
    assert float(total_variation(p, q)) == 1.0


def test_zero_mass_counts_exactly() -> None:
    p, q = uniform_on([0, 1], 4), uniform_on([0, 1, 2, 3], 4)
    assert float(kl(p, q)) == pytest.approx(math.log(2))
    assert float(kl(q, p)) == math.inf
    assert float(kl(p, p)) == 0.0
    assert float(entropy(uniform_on([2], 4))) == 0.0


def test_leading_axes_broadcast_a_base_against_views() -> None:
    rng = np.random.default_rng(91)
    base, views = log_softmax(rng.normal(size=(5, 9))), log_softmax(rng.normal(size=(3, 5, 9)))
    out = kl(base, views)
    assert out.shape == (3, 5)
    assert out[2, 4] == pytest.approx(float(kl(base[4], views[2, 4])))
    assert entropy(views).shape == (3, 5)


def test_tiny_divergences_keep_their_digits_in_spite_of_fp32_inputs() -> None:
    rng = np.random.default_rng(92)
    logits = rng.normal(size=50_000)
    p = log_softmax(logits).astype(np.float32)
    q = log_softmax(logits + 1e-3 * rng.normal(size=50_000)).astype(np.float32)
    exact = float(kl(special.log_softmax(p.astype(np.float64)), special.log_softmax(q.astype(np.float64))))
    plain = float(np.sum(np.exp(p.astype(float)) * (p.astype(float) - q.astype(float))))
    assert abs(float(kl(p, q)) - exact) < abs(plain - exact)
    assert float(kl(p, q)) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(
    ("logp", "says"),
    [
        (np.array([math.nan, 0.0]), "NaN"),
        (np.array([0.0, 0.0]), "sum to 1 within"),
        (np.array([math.inf, 0.0]), "sum to 1 within"),
        (np.array([-math.inf, -math.inf]), "sum to 1 within"),
        (np.array(0.0), "vocabulary"),
        (np.zeros((3, 0)), "vocabulary"),
    ],
)
def test_what_is_no_distribution_is_refused(logp: F64, says: str) -> None:
    good = uniform_on([0, 1], 2)
    for call in (
        lambda: kl(logp, good),
        lambda: js(good, logp),
        lambda: total_variation(logp, good),
        lambda: entropy(logp),
    ):
        with pytest.raises(BadInputError, match=says):
            call()


def test_different_vocabularies_are_refused() -> None:
    with pytest.raises(BadInputError, match="2 and 3"):
        kl(uniform_on([0], 2), uniform_on([0], 3))


def top(logp: F64, k: int, *, measured: bool = False) -> TokenDist:
    """The k most probable, with the tail's mass measured in float64 or left unknown."""
    order = np.argsort(-logp)
    tail = float(special.logsumexp(logp[order[k:]])) if measured and k < logp.size else None
    tail = tail if tail is not None and math.isfinite(tail) else None
    return TokenDist(order[:k].astype(np.int64), logp[order[:k]].astype(np.float32), logp.size, tail)


@given(pairs(), st.integers(1, 12), st.integers(1, 12), st.booleans())
@settings(deadline=None)
def test_the_other_bucket_gives_lower_bounds(pair: tuple[F64, F64], k: int, n: int, measured: bool) -> None:
    p, q = pair
    bucketed = with_other_bucket(top(p, k, measured=measured), top(q, n, measured=measured))
    for measure in (kl, js, total_variation):
        whole, bound = float(measure(p, q)), float(measure(bucketed.logp, bucketed.logq))
        # 1e-6 of mass, the resolution of an unmeasured tail, times a log ratio of at most 60.
        assert bound <= whole + 1e-4
        assert not math.isnan(bound)


def test_two_whole_vocabularies_lose_nothing() -> None:
    rng = np.random.default_rng(93)
    p, q = log_softmax(rng.normal(size=20)), log_softmax(rng.normal(size=20))
    bucketed = with_other_bucket(top(p, 20), top(q, 20))
    assert bucketed.token_ids.tolist() == list(range(20))
    assert float(kl(bucketed.logp, bucketed.logq)) == pytest.approx(float(kl(p, q)), rel=1e-5)
    assert bucketed.logp[-1] == -math.inf


def test_tokens_are_matched_by_id_and_never_by_rank() -> None:
    p = TokenDist(np.array([7, 3]), np.log(np.array([0.6, 0.3], np.float32)), 10)
    q = TokenDist(np.array([3, 7]), np.log(np.array([0.6, 0.3], np.float32)), 10)
    bucketed = with_other_bucket(p, q)
    assert bucketed.token_ids.tolist() == [3, 7]
    assert np.exp(bucketed.logp) == pytest.approx([0.3, 0.6, 0.1], abs=1e-6)
    assert float(total_variation(bucketed.logp, bucketed.logq)) == pytest.approx(0.3, abs=1e-6)


def test_a_large_tail_on_one_side_alone_is_seen() -> None:
    # Smearing the tail over the vocabulary, as is often done, would call these two almost equal.
    p = TokenDist(np.array([1, 2]), np.log(np.array([0.3, 0.1], np.float32)), 50_000)
    q = TokenDist(np.array([1, 2]), np.log(np.array([0.749, 0.25], np.float32)), 50_000)
    bucketed = with_other_bucket(p, q)
    assert float(js(bucketed.logp, bucketed.logq)) > 0.2


def test_lists_without_a_shared_token_bound_nothing() -> None:
    p = TokenDist(np.array([1]), np.log(np.array([0.9], np.float32)), 10)
    q = TokenDist(np.array([2]), np.log(np.array([0.9], np.float32)), 10)
    bucketed = with_other_bucket(p, q)
    assert float(kl(bucketed.logp, bucketed.logq)) == 0.0


def test_a_measured_tail_is_taken_as_it_is() -> None:
    p = TokenDist(np.array([1]), np.array([0.0], np.float32), 10, tail_logprob=-30.0)
    assert with_other_bucket(p, p).logp.tolist() == pytest.approx([0.0, -30.0])


def test_a_tail_lost_to_rounding_cannot_make_the_bound_infinite() -> None:
    p = TokenDist(np.array([1]), np.log(np.array([0.5], np.float32)), 10)
    q = TokenDist(np.array([1]), np.array([0.0], np.float32), 10, tail_logprob=0.0)
    bucketed = with_other_bucket(p, q)
    assert float(kl(bucketed.logp, bucketed.logq)) == pytest.approx(
        0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-6), abs=5e-5
    )


def test_lists_that_do_not_fit_are_refused() -> None:
    one = TokenDist(np.array([1]), np.array([-0.1], np.float32), 10)
    twice = TokenDist(np.array([1, 1]), np.array([-1.0, -1.0], np.float32), 10)
    with pytest.raises(BadInputError, match="10 and 11"):
        with_other_bucket(one, TokenDist(np.array([1]), np.array([-0.1], np.float32), 11))
    with pytest.raises(BadInputError, match="q: a token is listed twice"):
        with_other_bucket(one, twice)
