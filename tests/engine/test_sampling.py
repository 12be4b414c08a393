from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.views import BASE, FINETUNED, View, rotations
from dlm_sway.engine.sampling import Sampling, Uniforms, draw, n_levels, text_stream

WARM = Sampling(temperature=1.0)


def drawn(logits: torch.Tensor, how: Sampling, *, n: int, seed: int = 0) -> np.ndarray:
    """N draws from one row of logits [K]."""
    u = torch.from_numpy(stream(seed, "test").random((n, n_levels(logits.shape[-1]))))
    return draw(logits.expand(n, -1), u, how).numpy()


@pytest.mark.parametrize("vocab_size", [1, 2, 5, 64, 100])
def test_tokens_come_as_often_as_their_probability_says(vocab_size: int) -> None:
    logits = torch.from_numpy(stream(vocab_size).normal(size=vocab_size) * 2)
    n = 40_000
    seen = np.bincount(drawn(logits, WARM, n=n), minlength=vocab_size)
    p = torch.softmax(logits, 0).numpy()
    assert len(seen) == vocab_size
    assert (np.abs(seen - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-9).all()


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    n = 40_000
    seen = np.bincount(drawn(logits, Sampling(temperature=0.5), n=n), minlength=3) / n
    assert np.allclose(seen, torch.softmax(logits * 2, 0).numpy(), atol=0.015)


def test_top_p_keeps_the_fewest_tokens_that_hold_it() -> None:
    logits = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]).log()
    n = 20_000
    seen = np.bincount(drawn(logits, Sampling(1.0, top_p=0.75), n=n), minlength=5) / n
    assert np.allclose(seen, np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85, atol=0.02)
    assert set(drawn(logits, Sampling(1.0, top_p=0.39), n=100)) == {1}


def test_a_top_p_set_beyond_the_first_few_hundred_tokens_is_found_too() -> None:
    logits = torch.zeros(2000)
    logits[:1000] = 1e-3
    seen = np.unique(drawn(logits, Sampling(1.0, top_p=0.5), n=2000))
    assert seen.max() < 1000
    assert len(seen) > 800


def test_masked_tokens_are_never_drawn() -> None:
    logits = torch.full((9,), -torch.inf)
    logits[torch.tensor([3, 8])] = 1.0
    assert set(drawn(logits, WARM, n=500)) == {3, 8}


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 70), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([0.2, 0.9, 1.0]))
def test_a_draw_has_mass_even_at_the_ends_of_the_unit_interval(
    vocab_size: int, seed: int, temperature: float, top_p: float
) -> None:
    rng = stream(seed)
    logits = torch.from_numpy(np.where(rng.random(vocab_size) < 0.5, -np.inf, rng.normal(size=vocab_size) * 5))
    logits[int(rng.integers(vocab_size))] = 1.0
    u = torch.from_numpy(rng.choice([0.0, 1 - 2**-53, 0.5], size=(1, n_levels(vocab_size))))
    token = int(draw(logits[None], u, Sampling(temperature, top_p))[0])
    assert torch.isfinite(logits[token])


def test_rounding_of_the_logits_hardly_ever_changes_a_draw() -> None:
    """Between two batches fp32 logits differ by about 1e-5; with one uniform over the CDF ten of these draws would."""
    rng = stream("rounding")
    n, vocab_size = 4000, 4096
    logits = -1.1 * np.log(rng.permutation(vocab_size) + 1.0)[None].repeat(n, 0)
    other = logits + 1e-5 * rng.normal(size=logits.shape)
    u = torch.from_numpy(rng.random((n, n_levels(vocab_size))))
    pair = [draw(torch.from_numpy(z), u, WARM) for z in (logits, other)]
    assert int((pair[0] != pair[1]).sum()) <= 2


def test_a_row_is_drawn_alike_in_any_company() -> None:
    rng = stream("company")
    logits = torch.from_numpy(rng.normal(size=(6, 33)))
    u = torch.from_numpy(rng.random((6, n_levels(33))))
    how = Sampling(0.8, 0.9)
    alone = torch.cat([draw(z[None], w[None], how) for z, w in zip(logits, u, strict=True)])
    assert torch.equal(draw(logits, u, how), alone)


def test_a_text_has_a_stream_of_its_own() -> None:
    ids, other = np.array([1, 2]), np.array([1, 3])
    nulls = rotations(seed=1, n_draws=2)
    keys = [(0, BASE, ids, 0), (1, BASE, ids, 0), (0, FINETUNED, ids, 0), (0, BASE, other, 0), (0, BASE, ids, 1)]
    keys += [(0, v, ids, 0) for v in nulls]
    first = [text_stream(s, v, i, repeat=r).random() for s, v, i, r in keys]
    assert len(set(first)) == len(first)
    again = [text_stream(s, v, i, repeat=r).random() for s, v, i, r in keys]
    assert first == again


def test_every_view_at_scale_zero_draws_as_the_base() -> None:
    ids = np.array([4])
    zero = View("rotation", lam=0.0, seed=3, draw=5)
    assert text_stream(0, zero, ids, repeat=0).random() == text_stream(0, BASE, ids, repeat=0).random()


def test_draws_of_a_text_do_not_depend_on_which_texts_are_asked_beside_it() -> None:
    one, two = (Uniforms(stream(i) for i in range(3)) for _ in range(2))
    first = [one.next([0, 1, 2], 4)[1], one.next([1], 4)[0]]
    assert np.array_equal(first, [two.next([1], 4)[0], two.next([2, 1], 4)[1]])


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"temperature": float("inf")}, {"temperature": float("nan")}, {"top_p": 0.0},
                {"top_p": 1.1}, {"top_p": float("nan")}]
)  # fmt: skip
def test_options_without_meaning_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadInputError):
        Sampling(**options)
