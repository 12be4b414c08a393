"""The cheap advice that a check takes from existing answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.probes.base import Env
from dlm_sway.probes.dose import (
    CHEAP_SCALES,
    dose_claim,
    dose_evidence,
    dose_line,
    dose_of,
    rescale_command,
    sweep_asks,
)
from dlm_sway.stats.dose import Dose, Items, dose

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


def test_a_full_scale_that_may_be_worse_is_not_decided_and_says_what_is_known() -> None:
    found = _dose(0.6 + stream(1, "half").standard_normal(8))
    claim = dose_claim(found, what="held-out")
    assert claim.verdict is Verdict.INCONCLUSIVE
    low, high = found.rival.change.low, found.rival.change.high
    by = f"0.5 may be better by {found.rival.change.estimate:.2f} [{low:.2f}, {high:.2f}] nat/token"
    assert claim.message == (
        f"not decided whether 1.0 is as good: {by}; about {found.rival.n_to_decide} held-out texts would tell"
    )
    assert dose_evidence(found, what="held-out")["may_be_better"]["lam"] == 0.5
    worse = _dose(-0.01 + 0.2 * stream(1, "half").standard_normal(8))
    assert worse.rival.change.estimate < 0
    assert f"may be better by up to {worse.rival.change.high:.2f}, -0." in dose_line(worse, what="target")


def test_a_full_scale_is_compared_with_safe_scales_alone() -> None:
    off = -0.3 + 0.01 * stream(1, "half").standard_normal(8)
    assert dose_line(_dose(off), what="target").startswith("1.0 is as good as any other scale: target gain 1.50")
    assert dose_line(_dose(off, beyond=0.5), what="target").startswith("1.0 is as good as any other safe scale: ")


def _dose(off: npt.NDArray[np.float64], *, beyond: float = 0.0) -> Dose:
    """Return the advice on texts whose gain at half the scale is `off` above that at 1; harm `beyond` it at 1.25."""
    n, none = len(off), np.zeros(len(off))
    gains = np.stack([0.3 + none, 1.2 + none, 0.6 + none, 1.2 - off, 0.3 + none])
    control = np.zeros((5, 20))
    control[-1] = -40 * beyond
    given = Items(40 * gains, np.full(n, 40)), Items(control, np.full(20, 40))
    return dose([0.25, 0.5, 0.75, 1.0, 1.25], *given, rng=stream(0))


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
