"""YAML with the place of everything in it, so that whatever is wrong can be pointed at.

A file is hostile until read: only plain values are made (no tags, no objects), its size and depth are bounded, and so
is what aliases make of it, since nine lines of aliases of aliases can name a billion nodes. The last value of a key
that stands twice is never taken in silence: it is a fault. Merge keys (`<<`) work as YAML 1.1 has them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.constructor import SafeConstructor

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.suite_limits import MAX_BYTES, MAX_NODES
from dlm_sway.suite.faults import Fault, Keys, Place

MAX_DEPTH: Final = 40

_PLAIN: Final = "tag:yaml.org,2002:"
_SCALARS: Final = frozenset({"bool", "float", "int", "null", "str", "timestamp"})
_CUT: Final = 60
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds.

    Attributes:
        value: dictionaries, lists and scalars.
        keys: where the key of each entry stands, by the path to it.
        values: where each value stands, by the path to it; the root's path is empty.
        faults: what is wrong with it as YAML, such as a key that stands twice.
        sha256: of the bytes that were read, whatever stands in the file by now.
    """

    value: Any
    keys: dict[Keys, Place]
    values: dict[Keys, Place]
    faults: tuple[Fault, ...]
    sha256: str

    def place(self, path: Keys, *, of_key: bool = False) -> Place:
        """Return where `path` stands, or else the nearest thing around it; the key of it when `of_key`."""
        for end in range(len(path), -1, -1):
            if of_key and path[:end] in self.keys:
                return self.keys[path[:end]]
            if path[:end] in self.values:
                return self.values[path[:end]]
        return Place(1, 1)


def read_yaml(path: Path) -> Document:
    """Return what a YAML file holds.

    Raises:
        BadInputError: the file cannot be read, is too large, is no YAML, or names more than it should.
    """
    raw = _bytes(path)
    text = _text(raw, path)
    try:
        _require_shallow(text, path)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise _no_yaml(e, path) from None
    if root is None:
        raise BadInputError("is empty", where=path, remedy="write one with `sway init`")
    reader = _Reader(path)
    value = reader.read(root, (), ())
    return Document(value, reader.keys, reader.values, tuple(reader.faults), hashlib.sha256(raw).hexdigest())


def _require_shallow(text: str, path: Path) -> None:
    """Return unless the text nests too deeply: what composes nodes calls itself, and ends the process at its limit."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise BadInputError(f"is nested deeper than {MAX_DEPTH} levels", where=_where(path, event))


def _bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise BadInputError("is a directory, not a suite file", where=path, remedy="name the sway.yaml in it")
        with path.open("rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        what = "no such file" if isinstance(e, FileNotFoundError) else f"cannot be read: {e}"
        raise BadInputError(what, where=path, remedy="`sway init` writes one") from None
    if len(raw) > MAX_BYTES:
        what = f"is larger than {MAX_BYTES // 2**20} MiB"
        raise BadInputError(what, where=path, remedy="keep texts in files of their own, under `data`")
    return raw


def _text(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        raise BadInputError(f"is not UTF-8 in line {line}", where=path, remedy="save it as UTF-8") from None


@dataclass(slots=True)
class _Reader:
    """Walks the nodes of one file."""

    path: Path
    keys: dict[Keys, Place] = field(default_factory=dict)
    values: dict[Keys, Place] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    _plain: SafeConstructor = field(default_factory=SafeConstructor)

    def read(self, node: yaml.Node, path: Keys, above: tuple[int, ...]) -> Any:
        """Return the value of a node; `above` are the nodes that it stands in, so that a ring is found."""
        self._bound(node, above)
        self.values[path] = _place(node)
        inside = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, i), inside) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _bound(self, node: yaml.Node, above: tuple[int, ...]) -> None:
        self.count += 1
        if id(node) in above:
            raise BadInputError("an alias stands inside what it names", where=_where(self.path, node))
        if len(above) > MAX_DEPTH:
            raise BadInputError(f"is nested deeper than {MAX_DEPTH} levels", where=_where(self.path, node))
        if self.count > MAX_NODES:
            what = f"names more than {MAX_NODES:,} values"
            raise BadInputError(what, where=self.path, remedy="keep texts in files of their own, under `data`")

    def _mapping(self, node: yaml.MappingNode, path: Keys, inside: tuple[int, ...]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_PLAIN}merge":
                merged = {**self._merged(value_node, path, inside), **merged}
                continue
            key = self._key(key_node, path)
            if key in found:
                what = f"the key `{key}` stands twice, first in line {self.keys[*path, key].line}"
                self.faults.append(Fault(_place(key_node), what, "keep one of them"))
            self.keys[*path, key] = _place(key_node)
            found[key] = self.read(value_node, (*path, key), inside)
        return {**merged, **found}

    def _merged(self, node: yaml.Node, path: Keys, inside: tuple[int, ...]) -> dict[Any, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[Any, Any] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                self.faults.append(Fault(_place(part), "`<<` takes a mapping", "name an anchor of a mapping"))
                continue
            found = {**self._mapping(part, path, inside), **found}
        return found

    def _key(self, node: yaml.Node, path: Keys) -> Any:
        if isinstance(node, yaml.ScalarNode):
            # A key is a word, also where YAML would read a number or a truth value into it.
            return node.value
        self.faults.append(Fault(_place(node), "a key has to be a word"))
        return f"?{len(path)}"

    def _scalar(self, node: yaml.Node, path: Keys) -> Any:
        kind = node.tag.removeprefix(_PLAIN)
        if kind not in _SCALARS:
            self.faults.append(Fault(self.values[path], f"the tag `{node.tag[:_CUT]}` is not read", "take the tag out"))
            return None
        if kind in ("str", "timestamp"):  # a day is a word here
            return node.value
        try:
            return self._plain.construct_object(node)
        except (ValueError, yaml.YAMLError):
            self.faults.append(Fault(self.values[path], f"`{node.value[:_CUT]}` is no {kind}", "put it in quotes"))
            return None


def _place(node: yaml.Node | yaml.Event) -> Place:
    mark: Any = node.start_mark
    return Place(mark.line + 1, mark.column + 1)


def _where(path: Path, node: yaml.Node | yaml.Event) -> str:
    return f"{path}:{_place(node)}"


def _no_yaml(error: yaml.YAMLError, path: Path) -> BadInputError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f"{path}:{Place(mark.line + 1, mark.column + 1)}" if mark else str(path)
    context = getattr(error, "context", None)
    what = f"is no YAML: {problem}{f' {context}' if context else ''}"
    hint = "indent with spaces, not with tabs" if "\\t" in problem else "look at this line and the one before it"
    return BadInputError(what, where=where, remedy=hint)
