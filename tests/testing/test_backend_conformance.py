"""The public conformance suite: this project's backends keep it, and a backend that breaks a rule is told which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from tests.models import adapter_of, base_of, open_backend

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import View
from dlm_sway.testing.backend_conformance import CHECKS, Check, Subject, conformance

SUBJECTS: dict[str, Callable[[], Any]] = {
    "dummy": lambda: DummyBackend(DummyOptions(strength=1.0)),
    "hf-llama-qv": lambda: open_backend(base_of("llama"), adapter_of("llama", "qv")),
    "hf-qwen2-saved-all": lambda: open_backend(base_of("qwen2"), adapter_of("qwen2", "saved-all")),
    "hf-gpt2-dora": lambda: open_backend(base_of("gpt2"), adapter_of("gpt2", "dora")),
}


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Every backend of this project that runs in this process."""
    subject = Subject(SUBJECTS[request.param])
    yield subject
    subject.close()


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_backends_of_this_project_keep_the_contract(check: Check, subject: Subject) -> None:
    try:
        check.verify(subject)
    except SkipTest as reason:
        pytest.fail(f"these can do everything, yet: {reason}")


def _only(backend: Any, *names: str) -> Any:
    """Return an object with these methods of `backend` alone."""
    return type("Poor", (), {name: staticmethod(getattr(backend, name)) for name in names})()


def test_what_a_backend_cannot_do_is_a_named_skip() -> None:
    poor = Subject(lambda: _only(DummyBackend(), "as_base", "as_finetuned", "close"))
    found = {o.name: o for o in conformance(poor)}
    skipped = {name: o.message for name, o in found.items() if o.verdict is Verdict.SKIP}
    assert set(skipped) == {
        "scale_zero_is_the_base_and_one_the_fine_tune",
        "scales_move_without_a_jump",
        "gaussian_nulls_repeat_by_seed",
        "rotation_nulls_repeat_by_seed_and_draw",
        "preflight_says_whether_numbers_are_finite",
        "its_codec_splits_at_the_boundary",
        "the_engine_reads_what_views_read",
        "divergences_are_what_they_must_be",
    }
    assert all(skipped.values())
    assert {o.verdict for name, o in found.items() if name not in skipped} == {Verdict.PASS}


def test_a_refusal_of_nulls_is_a_skip_that_names_it() -> None:
    subject = Subject(lambda: DummyBackend(DummyOptions(refusal="no rule for x")))
    found = {o.name: o for o in conformance(subject)}
    for name in ("gaussian_nulls_repeat_by_seed", "rotation_nulls_repeat_by_seed_and_draw"):
        assert found[name].verdict is Verdict.SKIP
        assert "no rule for x" in found[name].message


class _Leaky(DummyBackend):
    @contextmanager
    def _held(self, handle: Any) -> Iterator[None]:
        self._open = handle
        yield


class _Forgetful(DummyBackend):
    def _forward(self, view: View, ids: Any, keep: Any) -> Any:
        self._drift = getattr(self, "_drift", 0.0) + (view.lam == 0.5)
        return super()._forward(view, ids, keep) * (1 + 1e-3 * self._drift)


class _Shifted(DummyBackend):
    def logits(self, ids: Any, keep: Any, view: View) -> Any:
        return super().logits(ids, np.maximum(keep - [[0, 1]], 0), view)


class _Unsteady(DummyBackend):
    def as_null_adapter(self, seed: int, **options: Any) -> Any:
        self._n = getattr(self, "_n", 0) + 1
        return super().as_null_adapter(seed + self._n, **options)


class _Doubled(DummyBackend):
    def as_scaled_adapter(self, lam: float) -> Any:
        return super().as_scaled_adapter(2 * lam)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (_Leaky, "views_exclude_each_other"),
        (_Leaky, "a_view_ends_with_its_block"),
        (_Forgetful, "the_fine_tune_comes_back"),
        (_Shifted, "the_engine_reads_what_views_read"),
        (_Unsteady, "gaussian_nulls_repeat_by_seed"),
        (_Doubled, "scale_zero_is_the_base_and_one_the_fine_tune"),
    ],
)
def test_a_backend_that_breaks_a_rule_fails_it_by_name(broken: type[DummyBackend], rule: str) -> None:
    found = {o.name: o for o in conformance(Subject(broken))}
    assert found[rule].verdict is Verdict.FAIL, found[rule]
    assert found[rule].message


def test_a_backend_that_raises_is_an_error_and_the_others_go_on() -> None:
    class Broken(DummyBackend):
        def preflight_finite_check(self) -> tuple[bool, str]:
            raise KeyError("x")

    found = {o.name: o for o in conformance(Subject(Broken))}
    assert found["preflight_says_whether_numbers_are_finite"].verdict is Verdict.ERROR
    assert "KeyError" in found["preflight_says_whether_numbers_are_finite"].message
    assert found["generation_repeats"].verdict is Verdict.PASS
