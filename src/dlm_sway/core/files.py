"""Files that are either whole or not there.

A result is written beside its final place and renamed into it, so a reader, a full disk or Ctrl-C never meets half
a file. Trade-offs taken: the directory entry itself is not fsynced (after a power cut the old file may still stand,
never half of the new one), and hard links to an older result keep the older content.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Final

from dlm_sway.core.errors import BadInputError, CannotRunError, SwayError

_OTHER_PLACE: Final = "name a file in a directory that you can write to"
_REMEDIES: Final = {
    errno.ENOSPC: "free some space on that disk or name another path",
    errno.EDQUOT: "free some of your quota or name another path",
    errno.EFBIG: "name a path on a disk that takes larger files",
}


def write_atomic(path: Path, text: str) -> None:
    """Leave `path` holding exactly `text` (UTF-8), or untouched.

    A link is followed, so the file it points to is replaced and the link stays. What is no regular file (a device,
    a pipe) is written to directly: renaming over it would destroy it.

    Raises:
        BadInputError: the parent directory does not exist, or `path` is a directory.
        CannotRunError: the system refused the write, as when the disk is full; no part file is left behind.
    """
    # Lone surrogates, which come from file names, have no UTF-8 form; "?" in their place beats a lost report.
    payload = text.encode("utf-8", errors="replace")
    target = _target(path)
    try:
        if _is_special(path):
            target.write_bytes(payload)
        else:
            _replace(target, payload)
    except OSError as exc:
        raise _cannot_write(path, exc) from exc


def writable(path: Path) -> None:
    """Return if a file can be created at `path` now; called before hours of work whose result goes there.

    Creates and removes an empty file beside `path`, since permission bits say nothing about a read-only mount,
    a quota or a superuser.

    Raises:
        BadInputError: the parent directory does not exist, `path` is a directory, or no file can be created there.
    """
    target = _target(path)
    if _is_special(path):
        return
    probe = _part_beside(target)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as exc:
        raise BadInputError(f"cannot create a file here: {_reason(exc)}", where=path, remedy=_remedy(exc)) from exc


def _target(path: Path) -> Path:
    """Return the file that a write to `path` would replace, after the checks that need no write."""
    try:
        mode = path.stat().st_mode if path.exists() else None
        target = path if mode is not None and not stat.S_ISREG(mode) else path.resolve()
        is_folder = target.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as exc:  # too long, a NUL inside, a loop of links
        raise BadInputError(f"not a usable path: {_reason(exc)}", where=str(path), remedy=_OTHER_PLACE) from exc
    if mode is not None and stat.S_ISDIR(mode):
        raise BadInputError("is a directory, not a file", where=path, remedy=f"name a file, such as {path}/sway.json")
    if not is_folder:
        what = f"cannot be written, since {target.parent} is no directory that exists"
        raise BadInputError(what, where=path, remedy="create the directory first or name another path")
    return target


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _part_beside(target: Path) -> Path:
    return target.with_name(f".sway-{secrets.token_hex(8)}.part")


def _replace(target: Path, payload: bytes) -> None:
    part = _part_beside(target)
    try:
        with part.open("xb") as handle:
            handle.write(payload)
            handle.flush()
            os.fsync(handle.fileno())
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except BaseException:  # Ctrl-C included: whatever stopped the write, no part may stay
        part.unlink(missing_ok=True)
        raise


def _cannot_write(path: Path, exc: OSError) -> SwayError:
    return CannotRunError(f"could not be written: {_reason(exc)}", where=path, remedy=_remedy(exc))


def _reason(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)


def _remedy(exc: OSError) -> str:
    return _REMEDIES.get(exc.errno or 0, _OTHER_PLACE)
