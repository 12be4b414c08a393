"""The probes of a suite file: names, kinds, data, and each kind's own keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from dlm_sway.core.errors import SwayError
from dlm_sway.core.extras import install_command
from dlm_sway.probes.base import Pairs, Probe, ProbeSpec
from dlm_sway.probes.registry import probe_class, probe_kinds, probes
from dlm_sway.suite.explain import explained, shown
from dlm_sway.suite.faults import Fault, Keys, did_you_mean
from dlm_sway.suite.fields import FROM_DATA, holds, in_file
from dlm_sway.suite.paths import from_file, is_path
from dlm_sway.suite.yaml_file import Document

_DATA: Final = "data"
_SUITE: Final = "suite"


@dataclass(slots=True)
class Members:
    """Reads the probes; what is wrong with any of them does not keep the others from being read.

    Attributes:
        path: the suite file.
        document: what it holds.
        raw: what stands under `suite`.
        data: files by name, as the file writes them.
        defaults: what stands under `defaults`.
        faults: what is wrong, once `read`.
    """

    path: Path
    document: Document
    raw: Any
    data: Mapping[str, str]
    defaults: Mapping[str, Any]
    faults: list[Fault] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _files: dict[tuple[str, str], list[Any] | None] = field(default_factory=dict)

    def read(self) -> Pairs:
        """Return the probes that are right."""
        self._require_files()
        entries = enumerate(self.raw) if isinstance(self.raw, list) else ()
        found = [self._member((_SUITE, i), entry) for i, entry in entries if isinstance(entry, Mapping)]
        return tuple(pair for pair in found if pair is not None)

    def _member(self, at: Keys, entry: Mapping[str, Any]) -> tuple[Probe[Any], ProbeSpec] | None:
        self._unique(at, entry.get("name"))
        cls = self._class(at, entry)
        if cls is None:
            return None
        spec_type: type[ProbeSpec] = cls.spec_type
        resolved = {key: self._value((*at, key), spec_type, value) for key, value in entry.items()}
        if "margin" in spec_type.model_fields and (margin := self._margin(entry["kind"])) is not None:
            resolved = {"margin": margin, **resolved}
        try:
            spec = spec_type.model_validate(resolved)
        except ValidationError as e:
            self.faults += explained(e, spec_type, self.document, at)
        except SwayError as e:
            self._fault(at, e.what, e.remedy)
        else:
            return cls(), spec
        return None

    def _margin(self, kind: str) -> float | None:
        """Return the default margin of a kind; None where there is none, or one that is a fault of the defaults."""
        margins = self.defaults.get("margins")
        margin = margins.get(kind) if isinstance(margins, Mapping) else None
        return margin if isinstance(margin, int | float) and 0 < margin < math.inf else None

    def _class(self, at: Keys, entry: Mapping[str, Any]) -> type[Probe[Any]] | None:
        kind = entry.get("kind")
        if not isinstance(kind, str):
            what = f"`kind` is {shown(kind)}, not a word" if "kind" in entry else "`kind` is missing"
            self._fault((*at, "kind"), what, f"known kinds: {', '.join(probe_kinds())}")
            return None
        if kind not in probe_kinds():
            self._fault((*at, "kind"), f"unknown kind `{kind}`", did_you_mean(kind, probe_kinds(), noun="known kinds"))
            return None
        try:
            return probe_class(kind)
        except SwayError as e:
            self._fault((*at, "kind"), e.what, e.remedy)
        except ImportError as e:  # a package of another's that lacks something
            self._fault((*at, "kind"), f"the probe `{kind}` cannot be imported: {e}", install_command(e.name or kind))
        return None

    def _unique(self, at: Keys, name: Any) -> None:
        if not isinstance(name, str) or not name:
            return  # what is wrong with it is said where the spec is validated
        line = self.document.place((*at, "name")).line
        if name in self._names:
            self._fault(
                (*at, "name"), f"the name `{name}` stands twice, first in line {self._names[name]}", "rename one"
            )
        self._names.setdefault(name, line)

    def _value(self, at: Keys, spec_type: type[BaseModel], value: Any) -> Any:
        what = holds(spec_type, str(at[-1]))
        if isinstance(value, Mapping) and set(value) == {_DATA} and what in FROM_DATA:
            return self._from_data((*at, _DATA), value[_DATA], what)
        if isinstance(value, str) and value and (what == "path" or (what == "word" and is_path(value))):
            there = from_file(self.path, value)
            return str(there) if what == "path" or there.exists() else value
        return value

    def _from_data(self, at: Keys, name: Any, what: Any) -> list[Any]:
        if not isinstance(name, str) or name not in self.data:
            known = tuple(self.data)
            hint = did_you_mean(name, known) if known else "name the file under `data` first"
            self._fault(
                at,
                f"no data is called `{shown(name)}`" if not isinstance(name, str) else f"no data is called `{name}`",
                hint,
            )
            return _STAND_IN[what]
        if (name, what) not in self._files:
            self._files[name, what] = self._read(name, what)
        found = self._files[name, what]
        return _STAND_IN[what] if found is None else found

    def _read(self, name: str, what: Any) -> list[Any] | None:
        try:
            return in_file(from_file(self.path, self.data[name]), what, called=name)
        except SwayError as e:
            where = f"{e.where}: " if e.where else ""
            self._fault((_DATA, name), f"{where}{e.what}", e.remedy)
            return None

    def _require_files(self) -> None:
        for name, file in self.data.items():
            there = from_file(self.path, file)
            if not there.is_file():
                self._files |= {(name, what): None for what in _STAND_IN}
                what = "is a directory, not a file" if there.is_dir() else "no such file"
                self._fault((_DATA, name), f"{file}: {what}", _neighbour(there))

    def _fault(self, at: Keys, what: str, remedy: str | None = None) -> None:
        self.faults.append(Fault(self.document.place(at), what, remedy or ""))


def kinds_with_margin() -> tuple[str, ...]:
    """Return the kinds whose spec has a margin."""
    return tuple(kind for kind, cls in probes().items() if "margin" in cls.spec_type.model_fields)


# What stands in for a file that cannot be read, so that the rest of the probe is looked at all the same.
_STAND_IN: Final[dict[str, list[Any]]] = {
    "items": ["stand-in"],
    "sections": ["stand-in"],
    "texts": ["stand-in"],
    "cases": [],
}


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        names = []
    near = did_you_mean(path.name, names)
    return near if near.startswith("did") else "paths are relative to the suite file"
