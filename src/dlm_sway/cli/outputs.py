"""Where files are to be written: places that can be, found out before the work, and that cost nobody what they hold.

A file that a command reads is never one that it writes, whatever --force says: `--json data.txt` would leave a report
in the place of what somebody wrote by hand. Nor does anything go into the directory of an adapter, whose files are
what is tested. `-` is no place but standard output, where one report can go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from dlm_sway.suite.spec import Suite

STDOUT: Final = Path("-")
_REPORTS: Final = frozenset({"json", "markdown", "html", "junit", "output"})
_ELSEWHERE: Final = "name another path"


def ready_to_write(path: Path | None) -> Path | None:
    """Return the place of a file to write with `~` expanded, after a check that it can be written.

    Raises:
        BadInputError: it cannot; found out now rather than after the work.
    """
    from dlm_sway.core.files import writable

    if path is None or path == STDOUT:
        return path
    expanded = path.expanduser()
    writable(expanded)
    return expanded


def places(
    *, reads: Iterable[Path | str | None] = (), adapters: Iterable[Path | None] = (), **paths: Path | None
) -> dict[str, Path]:
    """Return the places that were named, by option, after a check that each can be written and destroys nothing.

    Args:
        reads: files and folders that the command reads; a name that is no path here, such as a Hub id, is no harm.
        adapters: directories of adapters.
        paths: what is to be written, by the name of its option.

    Raises:
        BadInputError: one cannot be written, two are the same, one is what the command reads, or standard output is to
            take what is no report.
    """
    found = {name: place for name, path in paths.items() if (place := ready_to_write(path)) is not None}
    read = [Path(path).expanduser() for path in reads if path is not None]
    folders = [path.expanduser() for path in adapters if path is not None]
    files = _without_stdout(found)
    kept = [place for place in files if place.is_file() or not place.exists()]  # a pipe has nothing to lose
    for place in kept:
        _require_no_input(place, read)
        _require_outside(place, folders)
    for first, second in combinations(kept, 2):
        if _same(first, second):
            _refuse("is named for two files to write, and would hold one", second, "give each a path of its own")
    return found


def first_file(places: Mapping[str, Path]) -> Path | None:
    """Return the first of the places that is a file, or None."""
    return next((place for place in places.values() if place != STDOUT), None)


def read_by(suite: Suite) -> list[Path | str]:
    """Return the files and folders that a suite reads, but for its adapter."""
    return [suite.path, suite.model.base, *suite.data.values()]


def _without_stdout(found: Mapping[str, Path]) -> list[Path]:
    """Return the places that are files.

    Raises:
        BadInputError: standard output is to take what is no report, or two reports.
    """
    streamed = [name for name, place in found.items() if place == STDOUT]
    if not _REPORTS.issuperset(streamed):
        _refuse("only a report can go to standard output", STDOUT, "name a file")
    if len(streamed) > 1:
        _refuse("standard output is named for two reports, and takes one", STDOUT, "give each other a path of its own")
    return [place for place in found.values() if place != STDOUT]


def _require_no_input(place: Path, read: Iterable[Path]) -> None:
    for path in read:
        if _same(place, path):
            _refuse("is a file that this command reads, and would be replaced", place, _ELSEWHERE)
        if place.exists() and _is_inside(place, path):
            _refuse(f"is a file of {path}, which this command reads, and would be replaced", place, _ELSEWHERE)


def _require_outside(place: Path, folders: Iterable[Path]) -> None:
    for folder in folders:
        if _same(place, folder) or _is_inside(place, folder):
            _refuse("lies in the adapter, whose files are what is tested", place, "name a path outside of it")


def _refuse(what: str, place: Path, remedy: str) -> NoReturn:
    raise BadInputError(what, where=place, remedy=remedy)


def _same(place: Path, path: Path) -> bool:
    with suppress(OSError, ValueError):
        return _real(place) == _real(path) or (place.exists() and path.exists() and place.samefile(path))
    return False


def _is_inside(place: Path, folder: Path) -> bool:
    with suppress(OSError, ValueError):
        return folder.is_dir() and Path(_real(place)).is_relative_to(_real(folder))
    return False


def _real(path: Path) -> str:
    return os.path.realpath(path)  # unlike `resolve`, it is not stopped by a loop of links
