"""The engine's fp32 scalars against the float64 reference of `stats.divergence`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from dlm_sway.engine import reduce
from dlm_sway.engine.ask import Reducer
from dlm_sway.engine.reduce import reduce_block
from dlm_sway.stats import divergence

ALL: tuple[Reducer, ...] = ("gain", "kl", "kl_rev", "js", "tv", "entropy", "rank", "base_rank", "top1")
DIVERGENCES: tuple[Reducer, ...] = ("kl", "kl_rev", "js", "tv")


def reduced(base: Any, views: Any, target: Any) -> dict[str, np.ndarray]:
    """Reduce copies of logits [p, K] and [v, p, K], since the views' are overwritten."""
    parts = torch.tensor(np.asarray(base)), torch.tensor(np.asarray(views)), torch.tensor(target)
    return {name: x.numpy() for name, x in reduce_block(*parts, ALL).items()}


def reference(base: np.ndarray, views: np.ndarray, target: list[int]) -> dict[str, np.ndarray]:
    logp, logq = (log_softmax(x.astype(np.float64), axis=-1) for x in (base, views))
    at = np.array(target)
    own = logq[:, np.arange(len(at)), at]
    return {
        "gain": own - logp[np.arange(len(at)), at],
        "kl": divergence.kl(logp, logq),
        "kl_rev": divergence.kl(logq, logp),
        "js": divergence.js(logp, logq),
        "tv": divergence.total_variation(logp, logq),
        "entropy": divergence.entropy(logq),
        "rank": 1.0 + (logq > own[..., None]).sum(-1),
        "base_rank": np.tile(1.0 + (logp > logp[np.arange(len(at)), at][:, None]).sum(-1), (len(logq), 1)),
        "top1": (logq.argmax(-1) == logp.argmax(-1)).astype(float),
    }


def logits(rng: np.random.Generator, *shape: int, spread: float) -> np.ndarray:
    return (rng.standard_normal(shape) * spread).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(2, 400),
    spread=st.sampled_from([0.1, 3.0, 12.0]),
    effect=st.sampled_from([1e-2, 0.3, 4.0, 30.0]),
    shift=st.sampled_from([0.0, -40.0, 7.0]),
)
def test_every_reducer_equals_the_reference(seed: int, vocab: int, spread: float, effect: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    base = logits(rng, 3, vocab, spread=spread)
    views = base + logits(rng, 4, 3, vocab, spread=effect) + np.float32(shift)
    target = rng.integers(vocab, size=3).tolist()
    got, expected = reduced(base, views, target), reference(base, views, target)
    for name in ("gain", *DIVERGENCES, "entropy"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, atol=2e-5, err_msg=name)
    for name in ("rank", "base_rank", "top1"):
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    own = log_softmax(base.astype(np.float64), axis=-1)[np.arange(3), target]
    np.testing.assert_allclose(got["base_logprob"], own, atol=1e-5)


@pytest.mark.parametrize("vocab", [50, 49152])
@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("effect", [5e-5, 1e-3])
def test_tiny_effects_keep_their_digits(effect: float, shift: float, vocab: int) -> None:
    """A KL of 1e-9 nat is a sum of differences of 1e-5; log-probs of -10 carry a rounding of 1e-6 each."""
    rng = np.random.default_rng(0)
    base = logits(rng, 4, vocab, spread=4.0)
    views = base + logits(rng, 2, 4, vocab, spread=effect) + np.float32(shift)
    got, expected = reduced(base, views, [0] * 4), reference(base, views, [0] * 4)
    for name in DIVERGENCES:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-2, atol=0, err_msg=name)
    assert (expected["kl"] < 1e-5).all()
    assert (expected["kl"] > 1e-10).all()


def test_a_view_that_equals_the_base_has_no_effect_at_all() -> None:
    base = logits(np.random.default_rng(0), 5, 1000, spread=6.0)
    got = reduced(base, base[None], [1] * 5)
    for name in ("gain", *DIVERGENCES):
        np.testing.assert_array_equal(got[name], 0.0, err_msg=name)
    np.testing.assert_array_equal(got["top1"], 1.0)


@pytest.mark.parametrize("gap", [100.0, 300.0])
def test_huge_differences_stay_finite_and_right(gap: float) -> None:
    base = np.zeros((3, 6), np.float32)
    base[:, 0] = gap
    views = np.zeros((2, 3, 6), np.float32)
    views[0, :, 1] = gap
    views[1, :, 0] = gap / 2
    got, expected = reduced(base, views, [1, 0, 2]), reference(base, views, [1, 0, 2])
    for name in ALL:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(got["js"][0], math.log(2), rtol=1e-5)


def test_tokens_that_the_model_masks_count_for_nothing() -> None:
    rng = np.random.default_rng(1)
    base = logits(rng, 3, 40, spread=3.0)
    views = base + logits(rng, 2, 3, 40, spread=1.0)
    base[:, 7:11] = -np.inf
    views[:, :, 7:11] = -np.inf
    kept = [i for i in range(40) if not 7 <= i < 11]
    got, expected = reduced(base, views, [20, 3, 30]), reduced(base[:, kept], views[:, :, kept], [16, 3, 26])
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_only_a_view_masks_is_an_infinite_divergence_as_in_the_reference() -> None:
    base = logits(np.random.default_rng(2), 2, 9, spread=1.0)
    views = np.stack([base, base])
    views[1, 0, 4] = -np.inf
    got, expected = reduced(base, views, [0, 0]), reference(base, views, [0, 0])
    assert np.isinf(got["kl"][1, 0])
    for name in ALL:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["base", "view"])
def test_a_logit_that_is_no_number_is_never_hidden(where: str, value: float) -> None:
    base = logits(np.random.default_rng(3), 3, 50, spread=2.0)
    views = np.stack([base + 0.1, base - 0.1, base])
    (base if where == "base" else views[1])[1, 20] = value
    got = reduced(base, views, [0, 0, 0])
    for name in ALL:
        assert np.isnan(got[name][1, 1]), name
    # Nothing else is touched by it: not the other positions, nor the other views at this one.
    others = np.ones((3, 3), bool)
    others[slice(None) if where == "base" else 1, 1] = False
    for name in ALL:
        assert np.isfinite(got[name][others]).all(), name
    assert np.isnan(got["base_logprob"][1]) == (where == "base")


def test_a_position_without_a_target_has_no_gain_and_no_rank_but_all_else() -> None:
    base = logits(np.random.default_rng(4), 2, 30, spread=2.0)
    got = reduced(base, base[None] * 1.1, [-1, 5])
    for name in ("gain", "rank", "base_rank"):
        assert np.isnan(got[name][0, 0]), name
        assert np.isfinite(got[name][0, 1]), name
    assert np.isnan(got["base_logprob"][0])
    assert all(np.isfinite(got[name]).all() for name in (*DIVERGENCES, "entropy", "top1"))


def test_a_masked_target_has_no_gain() -> None:
    base = np.array([[0.0, 1.0, -np.inf]], np.float32)
    got = reduced(base, base[None] * 2, [2])
    assert np.isnan(got["gain"]).all()
    assert np.isneginf(got["base_logprob"]).all()


def test_a_position_does_not_depend_on_what_is_reduced_with_it() -> None:
    rng = np.random.default_rng(5)
    base = logits(rng, 4, 200, spread=3.0)
    views = base + logits(rng, 3, 4, 200, spread=1.0)
    base[2, :100] -= 90.0  # one position with a huge difference
    together = reduced(base, views, [0, 1, 2, 3])
    for i in range(4):
        alone = reduced(base[i : i + 1], views[:, i : i + 1], [i])
        for name in ALL:
            np.testing.assert_allclose(together[name][:, i], alone[name][:, 0], rtol=1e-5, atol=1e-7, err_msg=name)


def test_no_views_give_the_base_alone() -> None:
    base = logits(np.random.default_rng(6), 2, 30, spread=2.0)
    got = reduced(base, np.empty((0, 2, 30), np.float32), [3, 4])
    assert np.isfinite(got["base_logprob"]).all()
    assert all(got[name].shape == (0, 2) for name in ALL)


def test_bf16_logits_are_reduced_in_fp32() -> None:
    base = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    views = (base.float() + 0.5).bfloat16()[None]
    out = reduce_block(base, views.clone(), torch.tensor([0, 1, 2]), ("kl",))
    expected = reference(base.float().numpy(), views.float().numpy(), [0, 1, 2])["kl"]
    assert out["kl"].dtype == torch.float32
    np.testing.assert_allclose(out["kl"].numpy(), expected, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("n_views", [0, 1, 5])
def test_how_many_positions_are_reduced_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch, n_views: int) -> None:
    rng = np.random.default_rng(3)
    base = (3 * rng.standard_normal((7, 301))).astype(np.float32)
    views = base + 0.3 * rng.standard_normal((n_views, 7, 301)).astype(np.float32)
    views[:1, 2, 5] = np.nan
    views[1:2, 4] += 200 * (np.arange(301) == 1)  # a huge difference, of one position alone
    target = [3, -1, 0, 300, 7, 1, 2]
    whole = reduced(base, views, target)
    for room in (1, 4 * 301 * max(1, n_views) * 3):
        monkeypatch.setattr(reduce, "_IN_CACHE", room)
        for name, values in reduced(base, views, target).items():
            np.testing.assert_array_equal(values, whole[name], err_msg=name)
