"""The cheap advice that a check takes from existing answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.probes.base import Env
from dlm_sway.probes.dose import CHEAP_SCALES, dose_claim, dose_line, dose_of, rescale_command, sweep_asks

Language = Callable[..., tuple[str, ...]]


def _items(texts: tuple[str, ...]) -> tuple[TextItem, ...]:
    return tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(texts))


def test_two_small_asks_give_the_advice(language: Language) -> None:
    env = Env()
    backend = DummyBackend(DummyOptions(adapter="trained", towards=language(20), strength=10.0))
    asks = sweep_asks(_items(language(40, seed=1)), _items(language(40, first=70, seed=2)), env, name="dose")
    assert [tuple(v.lam for v in ask.views) for ask in asks] == [CHEAP_SCALES] * 2
    texts, controls = Engine(backend).answer(asks)
    assert texts.tokens.sum() < 700 < controls.tokens.sum() < 1300
    found = dose_of(texts, controls, rng=env.rng("dose"))
    assert dose_line(found, what="held-out").startswith(f"at {found.lam:g} of its scale: held-out gain ")
    assert dose_line(found, what="held-out").endswith(", harm gone")
    claim = dose_claim(found, what="held-out", adapter="runs/my adapter")
    assert claim.verdict is Verdict.WARN
    assert claim.message.endswith(
        f"; sway rescale 'runs/my adapter' --lam {found.lam:g} -o 'runs/my adapter-at-{found.lam:g}'"
    )


def test_without_controls_the_shipped_corpus_is_read_plain() -> None:
    _, control = sweep_asks(_items(("one", "two")), (), Env(format="chat"), name="dose")
    assert len(control.items) > 5
    assert control.format == "raw"


def test_answers_at_one_scale_are_no_sweep(language: Language) -> None:
    asks = [Ask(_items(language(6)), (FINETUNED,), frozenset({"gain"}))] * 2
    texts, controls = Engine(DummyBackend()).answer(asks)
    with pytest.raises(BadInputError, match="three or more rising"):
        dose_of(texts, controls, rng=Env().rng("dose"))


def test_the_command_is_one_that_a_shell_reads_back() -> None:
    assert rescale_command(0.5, adapter="a; rm b") == "sway rescale 'a; rm b' --lam 0.5 -o 'a; rm b-at-0.5'"
