"""Hugging Face data sets: a folder written by `save_to_disk`, a folder of data files, or an id such as `org/name`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.extras import needs_extra
from dlm_sway.data.reading import Record
from dlm_sway.data.registry import Reader, register
from dlm_sway.data.shapes import section_of
from dlm_sway.data.values import without_padding

_ID: Final = re.compile(r"(?:hf:)?([A-Za-z0-9][\w.-]*/[\w.-]+)(?:\[([\w.-]+)\])?$")
_DATA_FILES: Final = (".parquet", ".jsonl", ".arrow", ".csv")
_TRAIN: Final = "train"


@register("dataset")
class DatasetReader(Reader):
    """Reads data sets through `datasets`, memory-mapped; `org/name[split]` names another split than `train`.

    Nothing is fetched where `HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE` is set: then the cache alone answers.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def claims(cls, name: str) -> bool:
        """Return whether it is a folder with data in it, or an id that is no path."""
        try:
            path = _folder(name)[0]
            if path.is_dir():
                return _is_saved(path) or any(_has_data(folder) for folder in (path, path / "data"))
            return not Path(name).exists() and is_dataset_id(name)
        except (OSError, ValueError):
            return False

    def read(self, name: str) -> Iterator[Record]:
        """Yield a record a row of the split; places are row numbers, from 1."""
        for number, row in enumerate(_rows(name), start=1):
            yield section_of(without_padding(row), source=name, line=number)


def is_dataset_id(name: str) -> bool:
    """Return whether a name reads as an id: `hf:org/name`, or `org/name` without the ending of a file."""
    match = _ID.match(name)
    return match is not None and (name.startswith("hf:") or not Path(match[1]).suffix[1:].isalpha())


def splits_of(name: str) -> tuple[str, ...]:
    """Return the splits of a saved data set; empty where there is but one, or it is not on this disk."""
    path = Path(name)
    if not (path / "dataset_dict.json").is_file():
        return ()
    return tuple(sorted(p.name for p in path.iterdir() if p.is_dir()))


def _folder(name: str) -> tuple[Path, str]:
    """Return the path and the split of `path[split]`; the split is empty where none is named."""
    folder, bracket, split = name.removesuffix("]").rpartition("[")
    return (Path(folder), split) if bracket and name.endswith("]") and not Path(name).exists() else (Path(name), "")


def _has_data(folder: Path) -> bool:
    return folder.is_dir() and any(p.suffix in _DATA_FILES for p in folder.iterdir())


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with needs_extra("reading a data set"):
        import datasets
    try:
        yield from _opened(datasets, name)
    except BadInputError:
        raise
    # `datasets` raises whatever the format, the network or its own cache raised: no class tells them apart.
    except Exception as exc:
        offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE")
        remedy = "it is not in the cache, and HF_HUB_OFFLINE is set" if offline else "check the name and the network"
        what = f"cannot be read as a data set: {type(exc).__name__}: {str(exc)[:160]}"
        raise BadInputError(what, where=name, remedy=remedy) from exc


def _opened(datasets: Any, name: str) -> Any:
    path, wanted = _folder(name)
    if path.is_dir():
        if not _is_saved(path):
            return datasets.load_dataset(str(path), split=wanted or _TRAIN, streaming=True)
        found = datasets.load_from_disk(str(path))
        return _split(found, wanted, name) if isinstance(found, dict) else found
    match = _ID.match(name)
    if match is None:
        raise BadInputError("is neither a folder nor the id of a data set", where=name, remedy="check the name")
    return datasets.load_dataset(match[1], split=match[2] or _TRAIN)


def _split(found: Any, wanted: str, name: str) -> Any:
    if (split := wanted or _TRAIN) in found:
        return found[split]
    if len(found) == 1 and not wanted:
        return next(iter(found.values()))
    what = f"has no split {split!r}"
    raise BadInputError(what, where=name, remedy=f"name one of {', '.join(sorted(found))} as {name}[split]")
