"""A user's own backend: nothing is imported unasked, and what a class lacks is named method by method."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.backends.custom import missing
from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.registry import open_backend
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.model import ModelSpec
from dlm_sway.testing.backend_conformance import Subject, conformance

MODULE = """
from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.core.model import ModelSpec


class Mine(DummyBackend):
    @classmethod
    def from_spec(cls, spec: ModelSpec):
        return cls(name=spec.base)


class Poor:
    def as_base(self): ...

    def close(self): ...


class Bare(Mine):
    @classmethod
    def from_spec(cls, spec):
        return object()


not_a_class = 3
"""


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a maker of specs that name what is in a module of a user's."""
    (tmp_path / "users_backend.py").write_text(MODULE)
    (tmp_path / "users_broken.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_backend", raising=False)

    def make(entry_point: Any) -> ModelSpec:
        return ModelSpec(base="mine", kind="custom", options={"entry_point": entry_point})

    return make


def test_nothing_is_imported_without_the_users_word(named: Any) -> None:
    with pytest.raises(BadInputError, match=r"users_backend:Mine.*runs code that this spec names.*--allow-custom"):
        open_backend(named("users_backend:Mine"))
    assert "users_backend" not in sys.modules


def test_a_class_that_keeps_the_protocols_opens_and_conforms(named: Any) -> None:
    backend = open_backend(named("users_backend:Mine"), allow_custom=True)
    assert isinstance(backend, DummyBackend)
    assert backend.id == "mine"
    outcomes = conformance(Subject(lambda: open_backend(named("users_backend:Mine"), allow_custom=True)))
    assert {o.verdict.value for o in outcomes} == {"pass"}


def test_each_method_that_is_missing_is_named_with_its_protocol(named: Any) -> None:
    with pytest.raises(BadInputError) as caught:
        open_backend(named("users_backend:Poor"), allow_custom=True)
    assert caught.value.what == (
        "Poor lacks as_finetuned (DifferentialBackend), exclusive (BulkBackend), null_refusal (BulkBackend), "
        "from_spec (Backend), logits (LogitBackend) or scalars (ScalarBackend)"
    )
    assert missing(DummyBackend) == []


def test_what_it_opens_is_looked_at_too(named: Any) -> None:
    with pytest.raises(CannotRunError, match="what it opened has no id, codec, device, dtype"):
        open_backend(named("users_backend:Bare"), allow_custom=True)


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        (None, "no entry point is named; set entry_point"),
        (3, "3 is no entry point"),
        ("os.system", "is no entry point"),
        ("a b:C", "is no entry point"),
        ("no_such_package.x:C", "no_such_package cannot be imported"),
        ("users_backend:Absent", "users_backend has no class Absent"),
        ("users_backend:not_a_class", "has no class not_a_class"),
    ],
)
def test_a_wrong_entry_point_says_what_is_wrong(named: Any, entry_point: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        open_backend(named(entry_point), allow_custom=True)


def test_a_module_that_fails_on_import_is_one_clear_error(named: Any) -> None:
    with pytest.raises(CannotRunError, match="its module failed on import: RuntimeError: no licence"):
        open_backend(named("users_broken:X"), allow_custom=True)
