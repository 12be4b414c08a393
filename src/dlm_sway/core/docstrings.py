"""What docstrings say of fields, so that help, pages and schemas need no second wording."""

from __future__ import annotations

import inspect
import re
from typing import Final

_FIELD: Final = re.compile(r"    (\w+): (.*)")


def attributes(cls: type) -> dict[str, str]:
    """Return what the `Attributes:` block of a class's docstring says of each field."""
    found: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].splitlines():
        start = _FIELD.match(line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif line.startswith("     ") and name:
            found[name] += f" {line.strip()}"
    return found
