"""Directories that are either whole or not there: filled beside their place, then renamed into it.

Between the two renames that replace an older directory there is a moment without either; a power cut then leaves the
old one beside its place under a hidden name, never half of the new one.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlm_sway.core.errors import CannotRunError


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Give an empty directory that stands at `place` once the block has ended, and nowhere if it fails.

    What stood at `place` is gone then; whether it may go is for the caller to decide.

    Raises:
        CannotRunError: the system refused a write, as when the disk is full; nothing is left behind.
    """
    part = place.with_name(f".sway-{secrets.token_hex(8)}.part")
    try:
        part.mkdir()
        yield part
        _exchange(part, place)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CannotRunError(
            f"could not be written: {reason}", where=place, remedy="free some space or name another directory"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(part: Path, place: Path) -> None:
    if not place.exists():
        part.rename(place)
        return
    old = part.with_suffix(".old")
    place.rename(old)
    try:
        part.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)
