from __future__ import annotations

from pathlib import Path

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.suite.settings import Settings, read_weights
from dlm_sway.suite.spec import Defaults, Suite


def _suite(**defaults: object) -> Suite:
    model = ModelSpec(base="b", kind="dummy", device="cpu")
    return Suite(Path("s"), "s", "b", None, model, Defaults.model_validate(defaults), ())


def test_the_caller_comes_before_the_suite() -> None:
    suite = _suite(draws=99, score_weights={"ablation": 1})
    assert Settings().draws(suite) == 99
    assert Settings(n_draws=19).draws(suite) == 19
    assert Settings(device="mps").model(suite).device == "mps"
    assert Settings().model(suite).device == "cpu"
    assert Settings(weights={"adherence": 2}).score_weights(suite)["adherence"] == 2
    assert Settings().score_weights(suite)["ablation"] == 1


@pytest.mark.parametrize(("alpha", "draws", "fewest"), [(0.05, 18, 19), (0.01, 98, 99)])
def test_too_few_draws_to_reach_significance_are_refused(alpha: float, draws: int, fewest: int) -> None:
    with pytest.raises(BadInputError, match=f"ask for {fewest} draws"):
        Settings(n_draws=draws).draws(_suite(alpha=alpha))


def test_rounds_are_those_under_the_draws_that_could_decide() -> None:
    assert Settings(fast=True, n_draws=99).rounds(_suite()) == (19, 39)
    assert Settings(fast=True).rounds(_suite()) == (19,)
    assert Settings(fast=True, n_draws=200).rounds(_suite(alpha=0.01)) == (99,)
    assert Settings(n_draws=99).rounds(_suite()) == ()


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(BadInputError, match="--dtype"):
        Settings(dtype="fp8").model(_suite())


def test_weights_are_read_from_words() -> None:
    assert read_weights("adherence=0.5, calibration=1") == {"adherence": 0.5, "calibration": 1.0}
    assert read_weights(None) == read_weights("") == {}


@pytest.mark.parametrize("text", ["adherance=1", "adherence", "adherence=x", "adherence=-1", "adherence=nan", "=1"])
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="--weights"):
        read_weights(text)
