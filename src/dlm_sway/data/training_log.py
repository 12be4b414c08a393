"""What a trainer wrote of its run: `trainer_state.json` of Hugging Face's, or JSONL with `step` and `loss`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.core.errors import BadInputError

STATE_NAME: Final = "trainer_state.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_LOSS: Final = ("loss", "train_loss", "train/loss")
_EVAL: Final = ("eval_loss", "eval/loss", "val_loss", "val/loss", "validation_loss")
_MAX_BYTES: Final = 256 * 1024 * 1024
_REMEDY: Final = f"name a {STATE_NAME}, or JSONL whose lines hold `step` and `loss`"

Series = tuple[tuple[int, float], ...]
"""(step, value), steps rising."""


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """The curves of one training.

    Attributes:
        path: the file they were read from.
        loss: of the training data; values may be NaN or infinite.
        eval_loss: of held-out data.
        grad_norm: of the gradient.
        state: what the trainer says of itself, such as `global_step` and `epoch`; empty for JSONL.
        repeated: steps that were logged again, as a resumed run does; the last entry counts.
    """

    path: Path
    loss: Series
    eval_loss: Series = ()
    grad_norm: Series = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    repeated: int = 0


def read_training_log(path: Path) -> TrainingLog:
    """Return the curves in a file, or in the newest checkpoint or the only log of a directory.

    Raises:
        BadInputError: there is none, or it cannot be read.
    """
    source = find_log(path)
    if source.suffix.lower() in (".jsonl", ".ndjson"):
        return _log(source, _lines(source), {})
    state = read_json_object(source)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise BadInputError("holds no `log_history`", where=source, remedy=_REMEDY)
    # The summary at a run's end holds its mean loss under another name; it is no point of the curve.
    rows = [row for row in history if isinstance(row, dict) and "train_runtime" not in row]
    return _log(source, rows, {k: v for k, v in state.items() if k != "log_history"})


def find_log(path: Path) -> Path:
    """Return the log that a path names.

    Raises:
        BadInputError: no such file, or a directory without one, or with several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise BadInputError("no such file or directory", where=path, remedy=_REMEDY)
    state = find_state(path)
    if state is not None:
        return state
    logs = sorted(path.glob("*.jsonl"))
    if len(logs) == 1:
        return logs[0]
    what = f"holds {len(logs)} logs: {', '.join(p.name for p in logs[:3])}" if logs else "holds no training log"
    raise BadInputError(what, where=path, remedy=_REMEDY)


def find_state(folder: Path) -> Path | None:
    """Return a directory's `trainer_state.json`, else that of its newest checkpoint, else None."""
    if (folder / STATE_NAME).is_file():
        return folder / STATE_NAME
    found = [(int(m[1]), p) for p in folder.glob("checkpoint-*") if (m := _CHECKPOINT.fullmatch(p.name))]
    return next((p / STATE_NAME for _, p in sorted(found, reverse=True) if (p / STATE_NAME).is_file()), None)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInputError("over 256 MiB, too large for a log of losses", where=path, remedy=_REMEDY)
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"not UTF-8 text (byte {error.start})", where=path, remedy=_REMEDY) from None
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}", where=path, remedy=_REMEDY) from None
    rows = [_row(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [row for row in rows if "train_runtime" not in row]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInputError("is no JSON", where=where, remedy=_REMEDY) from None
    if not isinstance(row, dict):
        raise BadInputError("is no JSON object", where=where, remedy=_REMEDY)
    return row


def _log(path: Path, rows: Iterable[Mapping[str, Any]], state: Mapping[str, Any]) -> TrainingLog:
    rows = [row for row in rows if _step(row.get("step")) is not None]
    loss, repeated = _series(rows, _LOSS)
    if not loss:
        raise BadInputError("holds no line with both `step` and `loss`", where=path, remedy=_REMEDY)
    return TrainingLog(path, loss, _series(rows, _EVAL)[0], _series(rows, ("grad_norm",))[0], state, repeated)


def _series(rows: Iterable[Mapping[str, Any]], names: tuple[str, ...]) -> tuple[Series, int]:
    found: dict[int, float] = {}
    n = 0
    for row in rows:
        value = next((x for x in (_number(row.get(name)) for name in names) if x is not None), None)
        step = _step(row.get("step"))
        if value is not None and step is not None:
            found[step] = value
            n += 1
    return tuple(sorted(found.items())), n - len(found)


def _step(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def _number(value: Any) -> float | None:
    """Return a number as it was logged, NaN and infinities included; some trainers write those as strings."""
    if isinstance(value, str) and value.strip().lower() in ("nan", "inf", "-inf", "infinity", "-infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
