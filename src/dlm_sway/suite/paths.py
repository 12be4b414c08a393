"""Paths in a suite file: relative to the file, wherever the command was started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Options that name a model by a directory or a Hub id, as `base` does.
_MODELS_IN_OPTIONS: Final = {"two_model": ("finetuned",), "api": ("tokenizer",)}
_PATHLIKE: Final = ("./", "../", "~/", "~", "/")


def from_file(suite: Path, word: Path | str) -> Path:
    """Return the absolute path that `word` means in the file `suite`."""
    return (suite.absolute().parent / Path(word).expanduser()).absolute()


def is_path(word: str) -> bool:
    """Return whether a word can only be a path: it begins like one."""
    return word in (".", "..") or word.startswith(_PATHLIKE)


def model_words(raw: Any, suite: Path) -> Any:
    """Return the models with paths made absolute; a word stands for a base, or for an adapter.

    What the fine-tune leaves out is as for the base, so the base is named once.
    """
    if not isinstance(raw, Mapping):
        return raw
    out = dict(raw)
    if "base" in out:
        out["base"] = _spec(out["base"], "base", suite)
    if "ft" in out:
        ft = _spec(out["ft"], "adapter", suite)
        if isinstance(ft, Mapping) and isinstance(out.get("base"), Mapping):
            ft = {**{k: v for k, v in out["base"].items() if k != "adapter"}, **ft}
        out["ft"] = ft
    return {key: _with_options(value, suite) if key in ("base", "ft") else value for key, value in out.items()}


def _spec(raw: Any, word: str, suite: Path) -> Any:
    found = {word: raw} if isinstance(raw, str) else raw
    if not isinstance(found, Mapping):
        return raw
    return {**found, **{k: _found(found[k], k, suite) for k in ("base", "adapter") if k in found}}


def _with_options(spec: Any, suite: Path) -> Any:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("options"), Mapping):
        return spec
    options, names = spec["options"], _MODELS_IN_OPTIONS.get(str(spec.get("kind")), ())
    found = {name: _found(options[name], name, suite) for name in names if name in options}
    return {**spec, "options": {**options, **found}} if found else spec


def _found(value: Any, key: str, suite: Path) -> Any:
    if not isinstance(value, str) or not value:
        return value
    there = from_file(suite, value)
    # A base may be a Hub id: it is a path only where it looks like one, or where there is such a folder.
    return str(there) if key == "adapter" or is_path(value) or there.is_dir() else value
