from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dlm_sway.core import registry as module
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.registry import Registry

Loaded = list[str]
Offer = Callable[..., Registry[Any]]


def _class(name: str, *, where: str = "somewhere") -> type[Any]:
    return type(name, (), {"__module__": where})


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Return what makes a registry whose entry points are the given ones: (kind, value, what loading it does)."""

    def build(*entries: tuple[str, str, Callable[[], object]]) -> Registry[Any]:
        found = [SimpleNamespace(name=kind, value=value, load=load, dist=None) for kind, value, load in entries]
        monkeypatch.setattr(module, "entry_points", lambda *, group: found if group == "a.group" else [])
        return Registry("a.group", noun="probe")

    return build


def test_a_registered_class_is_found_and_knows_its_kind(offer: Offer) -> None:
    registry, cls = offer(), _class("A")
    assert registry.register("alpha")(cls) is cls
    assert registry.get("alpha") is cls
    assert cls.kind == "alpha"
    assert registry.all() == {"alpha": cls}


def test_a_near_name_is_offered(offer: Offer) -> None:
    registry = offer()
    registry.register("delta_kl")(_class("A"))
    with pytest.raises(BadInputError, match=r"unknown probe kind 'delta_lk'; did you mean 'delta_kl'\?"):
        registry.get("delta_lk")


def test_a_name_like_no_other_lists_what_there_is(offer: Offer) -> None:
    registry = offer(("second", "m", lambda: None))
    registry.register("first")(_class("A"))
    with pytest.raises(BadInputError, match="unknown probe kind 'zzz'; known kinds: first, second"):
        registry.get("zzz")


def test_two_classes_cannot_have_one_kind(offer: Offer) -> None:
    registry = offer()
    registry.register("alpha")(_class("A"))
    with pytest.raises(ValueError, match=r"probe kind 'alpha' is both somewhere\.A and elsewhere\.A"):
        registry.register("alpha")(_class("A", where="elsewhere"))


def test_the_same_class_after_a_reload_takes_its_own_place(offer: Offer) -> None:
    registry, again = offer(), _class("A")
    registry.register("alpha")(_class("A"))
    registry.register("alpha")(again)
    assert registry.get("alpha") is again


def test_only_the_module_of_the_kind_asked_for_is_imported(offer: Offer) -> None:
    loaded: Loaded = []

    def load(kind: str) -> Callable[[], object]:
        def run() -> object:
            loaded.append(kind)
            return registry.register(kind)(_class(kind))

        return run

    registry = offer(("light", "a.light", load("light")), ("heavy", "a.heavy", load("heavy")))
    assert registry.kinds() == ("heavy", "light")
    assert loaded == []
    registry.get("light")
    registry.get("light")
    assert loaded == ["light"]
    assert list(registry.all()) == ["heavy", "light"]


def test_a_module_that_does_not_register_its_kind_is_named(offer: Offer) -> None:
    registry = offer(("alpha", "a.module", lambda: None))
    with pytest.raises(CannotRunError, match=r"a\.module registers no probe kind 'alpha', though the group a\.group"):
        registry.get("alpha")


def test_two_packages_that_offer_one_kind_are_named(offer: Offer) -> None:
    registry = offer(("alpha", "b.module", lambda: None), ("alpha", "a.module", lambda: None))
    with pytest.raises(CannotRunError, match=r"'alpha' is offered by a\.module and by b\.module; uninstall"):
        registry.get("alpha")


def test_the_same_entry_twice_is_one_entry(offer: Offer) -> None:
    cls = _class("A")
    registry = offer(*[("alpha", "a.module", lambda: registry.register("alpha")(cls))] * 2)
    assert registry.get("alpha") is cls
