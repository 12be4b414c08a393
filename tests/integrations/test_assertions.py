"""Assertions: what passes, what does not, and what the error tells a reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.integrations.assertions import assert_applied, assert_no_harm

Language = Callable[..., tuple[str, ...]]
NOTHING: dict[str, Any] = {"strength": 0.0}
LOUD: dict[str, Any] = {"strength": 40.0, "adapter_seed": 3}


@pytest.fixture
def trained(language: Language) -> dict[str, Any]:
    """Return the options of a dummy that has learned the language and does no harm."""
    return {"adapter": "trained", "towards": list(language(12)), "strength": 2.0}


def test_an_adapter_that_acts_passes_and_gives_its_claim(trained: dict[str, Any], language: Language) -> None:
    claim = assert_applied("tiny", kind="dummy", options=trained, prompts=language(8))
    assert claim.verdict is Verdict.PASS
    assert claim.effect is not None
    assert claim.effect > 0


def test_an_adapter_that_does_nothing_fails_with_effect_and_remedy() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_applied("tiny", kind="dummy", options=NOTHING)
    said = str(caught.value)
    assert said.startswith("the adapter is not shown to be applied (fail)\n  effect:   0")
    assert "  against:  " in said
    assert "  to do:    run `sway inspect" in said


def test_a_harmless_adapter_passes(trained: dict[str, Any]) -> None:
    assert assert_no_harm("tiny", kind="dummy", options=trained).verdict is Verdict.PASS


def test_a_harmful_adapter_fails_with_its_interval() -> None:
    with pytest.raises(
        AssertionError, match=r"(?s)harmless within 0.05 nat/token \(fail\)\n  effect: .*nat/token lost \["
    ):
        assert_no_harm("tiny", kind="dummy", options=LOUD)


def test_too_few_texts_are_undecided_and_do_not_pass(language: Language) -> None:
    options = {"strength": 0.3, "adapter_seed": 3}
    with pytest.raises(AssertionError, match=r"(?s)\(inconclusive\).*found: .*to do:    give more texts"):
        assert_no_harm("tiny", kind="dummy", options=options, passages=language(2), margin=0.2)


def test_a_wider_margin_lets_the_same_adapter_pass() -> None:
    assert assert_no_harm("tiny", kind="dummy", options=LOUD, margin=1e6).verdict is Verdict.PASS


def test_the_model_is_closed_whatever_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(DummyBackend, "close", lambda _: closed.append(True))
    with pytest.raises(AssertionError):
        assert_applied("tiny", kind="dummy", options=NOTHING)
    assert closed == [True]


def test_a_field_that_no_model_has_is_an_error_of_the_test_and_no_verdict() -> None:
    with pytest.raises(BadInputError, match="devise"):
        assert_applied("tiny", kind="dummy", devise="cpu")
