"""How built-ins and plugins are found by name: one decorator and one entry-point group for each sort of thing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from dlm_sway.core.errors import BadInputError, CannotRunError

ClassT = TypeVar("ClassT", bound="type[Any]")
Registered = TypeVar("Registered", bound="type[Any]")


class Registry(Generic[ClassT]):
    """Classes by kind; an entry point of the group is named like the kind, and names the module that registers it.

    Only what is asked for is imported, so a kind with heavy imports costs nothing until it is used.

    Args:
        group: the entry-point group, such as `dlm_sway.probes`.
        noun: what the classes are, for messages, such as `probe`.
    """

    def __init__(self, group: str, *, noun: str) -> None:
        self._group = group
        self._noun = noun
        self._classes: dict[str, ClassT] = {}

    def register(self, kind: str) -> Callable[[Registered], Registered]:
        """Return a class decorator that makes a class known as `kind`, which becomes its attribute `kind`.

        Raises:
            ValueError: another class already has that kind; the same class again, after a reload, takes its place.
        """

        def add(cls: Registered) -> Registered:
            known: Any = self._classes.get(kind)
            if known is not None and _name(known) != _name(cls):
                raise ValueError(f"{self._noun} kind {kind!r} is both {_name(known)} and {_name(cls)}")
            classes: dict[str, Any] = self._classes
            classes[kind] = cls
            cls.kind = kind
            return cls

        return add

    def kinds(self) -> tuple[str, ...]:
        """Return every kind there is, sorted; imports nothing."""
        return tuple(sorted({*self._classes, *self._entries}))

    def get(self, kind: str) -> ClassT:
        """Return the class registered as `kind`, importing its module when it is asked for first.

        Raises:
            BadInputError: there is none; the message offers the nearest name.
            CannotRunError: the module that should register it does not, or two packages offer the kind.
        """
        if kind not in self._classes and kind in self._entries:
            self._load(self._entries[kind])
        if kind in self._classes:
            return self._classes[kind]
        known = self.kinds()
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(known)}"
        raise BadInputError(f"unknown {self._noun} kind {kind!r}", remedy=hint)

    def all(self) -> dict[str, ClassT]:
        """Return every class by kind, sorted; imports all of them and raises as `get`."""
        return {kind: self.get(kind) for kind in self.kinds()}

    @cached_property
    def _entries(self) -> Mapping[str, dict[str, EntryPoint]]:
        """Return the entry points of each kind by what they name: one, unless packages are at odds."""
        found: dict[str, dict[str, EntryPoint]] = {}
        for entry in entry_points(group=self._group):
            found.setdefault(entry.name, {})[entry.value] = entry
        return found

    def _load(self, entries: Mapping[str, EntryPoint]) -> None:
        if len(entries) > 1:
            kind = next(iter(entries.values())).name
            what = f"{self._noun} kind {kind!r} is offered by {' and by '.join(sorted(entries))}"
            raise CannotRunError(what, remedy="uninstall all but one of these packages")
        (entry,) = entries.values()
        entry.load()
        if entry.name not in self._classes:
            owner = entry.dist.name if entry.dist else "the package that holds it"
            raise CannotRunError(
                f"{entry.value} registers no {self._noun} kind {entry.name!r}, though the group {self._group} says so",
                remedy=f"update or uninstall {owner}",
            )


def _name(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
