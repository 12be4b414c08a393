"""Reads the JSONL files that come with the package; a damaged one is a fault of the installation, never of the user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources.abc import Traversable
from itertools import zip_longest
from typing import Any, TypeVar

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.extras import REINSTALL

T = TypeVar("T")


def jsonl_files(folder: Traversable, *, what: str) -> list[Traversable]:
    """Return all `*.jsonl` right in `folder`, by name.

    Raises:
        CannotRunError: there are none.
    """
    paths = [path for path in folder.iterdir() if path.name.endswith(".jsonl")] if folder.is_dir() else []
    if not paths:
        raise damaged(f"no {what} found", where=str(folder))
    return sorted(paths, key=lambda path: path.name)


def json_lines(path: Traversable, *, what: str) -> Iterator[tuple[str, Any]]:
    """Yield (`file:line`, value) of each line that is not blank.

    Raises:
        CannotRunError: a line is no JSON.
    """
    # Not str.splitlines: it would also cut at the line separators that a JSON string may hold unescaped.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            where = f"{path.name}:{number}"
            try:
                yield where, json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise damaged(f"a line of the {what} is no JSON", where=where) from error


def interleaved(rows: Iterable[T], group: Sequence[str]) -> tuple[T, ...]:
    """Return rows in turn from each group, groups by name: every prefix is as balanced as the groups allow."""
    by_group: dict[str, list[T]] = {name: [] for name in sorted(set(group))}
    for row, name in zip(rows, group, strict=True):
        by_group[name].append(row)
    return tuple(row for turn in zip_longest(*by_group.values()) for row in turn if row is not None)


def damaged(what: str, *, where: str) -> CannotRunError:
    """Return the error for an installation whose data files are not what was shipped."""
    return CannotRunError(what, where=where, remedy=REINSTALL)
