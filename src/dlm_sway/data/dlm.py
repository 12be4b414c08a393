"""The form of a `.dlm` document: frontmatter, then sections opened by fences. No package is needed to read it.

A line that holds only `::type::`, with an optional name as `::type#name::` or behind it as `::type:: #name`, opens a
section that runs to the next such line. What stands before the first is prose. Inside triple backticks a fence opens
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import content_id
from dlm_sway.data.files import Line, lines
from dlm_sway.data.paragraphs import CodeFence, joined
from dlm_sway.data.plain_yaml import plain_yaml

_FENCE: Final = re.compile(r"::([A-Za-z][\w-]*)(?:#([\w.-]+))?::(?:[ \t]+#([\w.-]+))?[ \t]*$")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
_HUB: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
_MOST_HEADER: Final = 1000  # lines
# What the short names of a document's `base_model` stand for.
BASES: Final[Mapping[str, str]] = {
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2.5-3b": "Qwen/Qwen2.5-3B-Instruct",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B-Instruct",
    "phi-3.5-mini": "microsoft/Phi-3.5-mini-instruct",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the frontmatter says.

    Attributes:
        dlm_id: names the document's store.
        base: directory or Hub id of its base, or None where it names none that is known.
        base_model: the base as the document names it.
        fields: everything in it.
    """

    dlm_id: str | None
    base: str | None
    base_model: str | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One section of the body.

    Attributes:
        type: `prose`, `instruction`, `preference`, or whatever the fence says, in lower case.
        name: the name behind `#`, or empty.
        at: line of the fence; of unfenced text, its first line.
        body: the lines under the fence.
    """

    type: str
    name: str
    at: int
    body: tuple[Line, ...]

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the section's canonical text."""
        return content_id(joined(self.body))


def read_header(path: Path) -> Header:
    """Return the frontmatter of a document.

    Raises:
        BadInputError: it cannot be read, has no frontmatter, or that is no YAML mapping.
    """
    return _header(lines(path), path)


def read_parts(path: Path) -> Iterator[Part]:
    """Yield the sections of a document; blank ones too, so that a reader can count them.

    Raises:
        BadInputError: as for `read_header`, or a block of triple backticks that is never closed.
    """
    numbered = lines(path)
    _header(numbered, path)
    fence, kind, name, at = CodeFence(), "prose", "", 0
    body: list[Line] = []
    for number, text in numbered:
        match = None if fence.inside(number, text) else _FENCE.match(text)
        if match is None:
            body.append((number, text))
            continue
        if at or any(text.strip() for _, text in body):
            yield Part(kind, name, at or body[0][0], tuple(body))
        kind, name, at, body = match[1].lower(), match[2] or match[3] or "", number, []
    if fence.is_open:
        what = "a block of triple backticks is opened here and never closed, so no fence behind it counts"
        raise BadInputError(what, where=f"{path}:{fence.opened_at}", remedy="close it with a line of three backticks")
    if at or any(text.strip() for _, text in body):
        yield Part(kind, name, at or body[0][0], tuple(body))


def _header(numbered: Iterator[Line], path: Path) -> Header:
    import yaml

    first = next(numbered, None)
    if first is None or first[1].rstrip() != "---":
        what = "has no frontmatter: a .dlm document begins with a line of three dashes"
        raise BadInputError(what, where=f"{path}:1", remedy="add it, or name the file .md if it is Markdown")
    raw: list[str] = []
    for _, text in numbered:
        if text.rstrip() == "---":
            break
        raw.append(text)
        if len(raw) > _MOST_HEADER:
            raise BadInputError(
                f"frontmatter runs over {_MOST_HEADER} lines", where=f"{path}:1", remedy="close it: ---"
            )
    else:
        raise BadInputError("frontmatter is never closed", where=f"{path}:1", remedy="add a line of three dashes")
    try:
        fields = plain_yaml("\n".join(raw)) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        problem = getattr(exc, "problem", None) or type(exc).__name__
        raise BadInputError(f"frontmatter is no YAML ({problem})", where=f"{path}:{line}") from exc
    if not isinstance(fields, dict):
        raise BadInputError("frontmatter is no mapping of keys to values", where=f"{path}:2", remedy="write key: value")
    return _understood(fields, path)


def _understood(fields: Mapping[Any, Any], path: Path) -> Header:
    dlm_id, model = fields.get("dlm_id"), fields.get("base_model")
    if dlm_id is not None and not (isinstance(dlm_id, str) and _ID.match(dlm_id)):
        what = f"`dlm_id` is no id: {str(dlm_id)[:60]!r}"
        raise BadInputError(what, where=f"{path}:2", remedy="it holds letters, digits, `-` and `_` alone, in quotes")
    if model is not None and not isinstance(model, str):
        raise BadInputError("`base_model` is no string", where=f"{path}:2", remedy="write hf:org/name")
    return Header(dlm_id, base_of(model) if model else None, model, {str(k): v for k, v in fields.items()})


def base_of(name: str) -> str | None:
    """Return the Hub id of a `base_model`: `hf:org/name`, or a short name that is known; else None."""
    if name.startswith("hf:"):
        hub = name.removeprefix("hf:").strip()
        return hub if _HUB.match(hub) else None
    return BASES.get(name.lower())
