from __future__ import annotations

import numpy as np
import pytest

from dlm_sway.data.control import control_passages
from dlm_sway.probes.form import features, nearest


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("text", ["", "   ", "a", "!!!", "\u4e2d\u6587\u3002", "1 2 3"])
def test_every_text_has_a_finite_form(text: str) -> None:
    assert np.isfinite(features(text)).all()
    assert features(text).shape == (7,)


@pytest.mark.parametrize("register", ["code", "dialogue", "invented"])
def test_passages_of_a_register_are_matched_with_their_own_more_often_than_by_chance(register: str) -> None:
    passages = control_passages()
    wanted = [p.text for p in passages if p.register == register][:8]
    pool = [p for p in passages if p.text not in wanted]
    chosen = nearest(wanted, [p.text for p in pool], rng=_rng())
    own = sum(pool[i].register == register for i in chosen)
    assert own >= 4  # by chance about 0.8 of 8


def test_no_text_is_used_twice_and_the_stream_decides() -> None:
    texts = [p.text for p in control_passages()]
    chosen = nearest(texts[:40], texts[40:], rng=_rng())
    assert len(set(chosen.tolist())) == 40
    np.testing.assert_array_equal(chosen, nearest(texts[:40], texts[40:], rng=_rng()))


def test_a_pool_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="2 texts cannot be matched from 1"):
        nearest(["a", "b"], ["c"], rng=_rng())
