from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import backend_of

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.views import FINETUNED, rotations
from dlm_sway.engine.ask import Ask, Scores, Sloped, Slopes, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.engine.slopes import slopes
from dlm_sway.engine.trace import TraceWriter
from dlm_sway.engine.trace_summary import read_trace
from dlm_sway.engine.write import answer

TEXTS = tuple(
    TextItem("", text, str(i), str(i)) for i, text in enumerate(("w50 w51 w52", "w60 w61", "w70 w71 w72 w73"))
)


def dummy(**options: Any) -> DummyBackend:
    return DummyBackend(DummyOptions(**options))


def test_the_predicted_gain_is_that_of_a_small_step() -> None:
    backend = dummy(strength=1.0)
    found = slopes(Engine(backend), Slopes(TEXTS))
    step = 1e-4
    for i, item in enumerate(TEXTS):
        ends = []
        for lam in (-step, step):
            with backend.as_scaled_adapter(lam) as view:
                ends.append(view.logprob_of("", item.completion))
        assert found.items[i].sum() == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=0.02, abs=2e-2)
    assert found.tokens.tolist() == [3, 2, 4]
    assert (found.modules, found.left_out, found.refusal) == (("head",), (), None)


def test_spectra_give_the_predicted_gains_of_the_rotation_nulls() -> None:
    """The predicted gain of a null is <G, B'>; its spread over nulls is what the singular values say."""
    backend = dummy(strength=1.0)
    found = slopes(Engine(backend), Slopes(TEXTS))
    (spectrum,) = found.spectra["target"]
    gradient = np.zeros_like(backend.trained_factors()["head"], dtype=np.float64)
    with backend.exclusive():
        for item in TEXTS:
            pair = backend.codec.encode_pair("", item.completion)
            gradient += backend.factor_gradients(pair.ids[:-1], pair.start - 1, pair.ids[pair.start :])["head"]
    draws = [float(np.vdot(gradient, backend._adapter.under(v).b)) for v in rotations(seed=0, n_draws=2000)]
    sd = np.sqrt(spectrum @ spectrum / found.d_out[0]) * found.tokens.sum()
    assert np.std(draws) == pytest.approx(sd, rel=0.06)


def test_controls_are_subtracted_per_token() -> None:
    engine = Engine(dummy(strength=1.0))
    both = slopes(engine, Slopes(TEXTS[:2], TEXTS[2:]))
    alone = slopes(engine, Slopes(TEXTS[:2]))
    same = slopes(engine, Slopes(TEXTS, TEXTS))
    assert both.items == pytest.approx(alone.items)
    assert both.controls.shape == (1, 1)
    assert both.control_tokens.tolist() == [4]
    assert alone.spectra["difference"][0] == pytest.approx(alone.spectra["target"][0])
    assert same.spectra["difference"][0] == pytest.approx(0.0, abs=1e-12)


def test_only_the_first_tokens_count_where_a_limit_is_set() -> None:
    engine = Engine(dummy(strength=1.0))
    cut = slopes(engine, Slopes(TEXTS[2:], max_tokens=2))
    assert cut.tokens.tolist() == [2]
    assert cut.items == pytest.approx(slopes(engine, Slopes((TextItem("", "w70 w71", "", ""),))).items)


def test_slopes_are_answered_beside_other_asks_in_order() -> None:
    ask = Ask(TEXTS, (FINETUNED,), frozenset({"gain"}))
    found = answer(Engine(dummy()), [Slopes(TEXTS), ask, Slopes(TEXTS[:1])])
    assert [type(f) for f in found] == [Sloped, Scores, Sloped]
    assert found[2].ask.items == TEXTS[:1]  # type: ignore[union-attr]


def test_the_trace_says_who_asked(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "trace.jsonl") as trace:
        engine = Engine(dummy(), trace=trace)
        answer(engine, [Ask(TEXTS, (FINETUNED,), frozenset({"gain"})), Slopes(TEXTS)], askers=["scores", "slopes"])
    found = read_trace(tmp_path / "trace.jsonl")
    assert set(found.probes) == {"scores", "slopes"}
    assert engine.view_tokens_done == found.total.tokens > 9


def test_a_backend_without_gradients_is_a_refusal_and_no_error() -> None:
    class Plain:
        codec = dummy().codec

    found = slopes(Engine(Plain()), Slopes(TEXTS))  # type: ignore[arg-type]
    assert "Plain gives no gradients" in (found.refusal or "")
    assert (found.modules, found.items.size) == ((), 0)
    assert "plain LoRA" in (slopes(Engine(backend_of("llama", "dora")), Slopes(TEXTS)).refusal or "")


def test_numbers_that_are_not_finite_and_texts_without_tokens_are_errors() -> None:
    with pytest.raises(CannotRunError, match="not finite"):
        slopes(Engine(dummy(nan_in=["base"])), Slopes(TEXTS))
    with pytest.raises(BadInputError, match="empty"):
        slopes(Engine(dummy()), Slopes((TextItem("", "", "x", "x"),)))


def test_a_sequence_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = dummy()

    def full(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(backend, "factor_gradients", full)
    with pytest.raises(CannotRunError, match="out of memory on the gradient of 3 tokens"):
        slopes(Engine(backend), Slopes(TEXTS[:1]))


def test_on_a_transformer_each_module_has_its_slope() -> None:
    backend = backend_of("llama", "all-linear")
    items = tuple(TextItem("", t, t, t) for t in ("the bell is struck", "water falls"))
    found = slopes(Engine(backend), Slopes(items))
    assert len(found.modules) == len(backend.sites.low_rank)
    assert found.items.shape == (2, len(found.modules))
    assert found.d_out.tolist() == [s.b.shape[0] for s in backend.sites.low_rank]
    assert all(s.size == 4 for s in found.spectra["target"])
