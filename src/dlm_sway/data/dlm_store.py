"""Where the adapter of a `.dlm` document lies: the store layout, and nothing that leaves it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.data.dlm import Header

_LONGEST: Final = 4096


def store_home() -> Path:
    """Return the folder of all documents' stores: `$DLM_HOME`, else `~/.dlm`."""
    named = os.environ.get("DLM_HOME")
    return Path(named).expanduser() if named else Path.home() / ".dlm"


def adapter_of(header: Header, document: Path) -> Path:
    """Return the directory of the document's current adapter: what `store/<dlm_id>/adapter/current.txt` names.

    Args:
        header: the document's frontmatter.
        document: its path, for the error.

    Raises:
        BadInputError: the document has no id, was never trained, or its store points nowhere or out of itself.
    """
    if header.dlm_id is None:
        raise BadInputError("has no `dlm_id`, so its store cannot be found", where=document, remedy="give --adapter")
    home = store_home() / "store" / header.dlm_id
    pointer = home / "adapter" / "current.txt"
    try:
        named = pointer.read_bytes()[:_LONGEST].decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        what = f"no adapter of {header.dlm_id} is there: {pointer.name} cannot be read"
        raise BadInputError(what, where=pointer, remedy="train the document, or give --adapter") from exc
    # Written relative to the store by some, and to the adapter folder by others.
    for folder in (home, home / "adapter"):
        try:
            found = (folder / named).resolve()
            inside = found.is_relative_to(home.resolve())
            if named and inside and found.is_dir():
                return found
        except (OSError, ValueError, RuntimeError):
            break
    what = f"names {named[:80]!r}, which is no folder of this store"
    raise BadInputError(what, where=pointer, remedy="train the document again, or give --adapter")
