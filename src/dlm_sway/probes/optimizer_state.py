"""A trainer's optimizer state: what it remembers of each tensor it trained. Never runs code from the file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.extras import needs_extra

NAMES: Final = ("optimizer.pt", "optimizer.bin", "training_state.pt", "training_state.bin")
_NESTED: Final = ("optimizer", "optimizer_state_dict", "optimizer_state", "optim")
SECOND: Final = ("exp_avg_sq", "exp_avg_sq_row", "v", "state2", "square_avg", "sum")
_OTHER: Final = ("exp_avg", "momentum_buffer", "m", "state1")
_SCALES: Final = {"state1": ("absmax1", "max1"), "state2": ("absmax2", "max2")}  # of bitsandbytes' 8-bit moments
_SAVE: Final = "save it with `torch.save` as tensors, numbers and plain containers, as `Trainer` does"


@dataclass(frozen=True, slots=True)
class TrainedTensor:
    """What an optimizer remembers of one tensor.

    Attributes:
        name: its name where the file has one, else its number and shape.
        n: numbers that it has, as far as the moments tell; 0 where nothing is remembered.
        steps: updates done, or None where it is not counted.
        not_finite: numbers that are NaN or infinite, in all moments.
        zero: share of the squared gradients (or of the momentum, where there are none) that is exactly 0, of quantised
            ones by block; None where nothing is remembered.
        coded: whether its moments are codes without a scale that is known, so that `zero` says nothing.
    """

    name: str
    n: int
    steps: int | None
    not_finite: int
    zero: float | None
    coded: bool = False


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """What an optimizer remembers.

    Attributes:
        path: the file.
        tensors: one a tensor that it was to train.
        keeps_moments: whether it keeps any; plain SGD does not.
        adaptive: whether it is of Adam's kind, which always does once it has made a step.
    """

    path: Path
    tensors: tuple[TrainedTensor, ...]
    keeps_moments: bool
    adaptive: bool


def find_optimizer(path: Path) -> Path | None:
    """Return the file that holds an optimizer's state: the path itself, or one in a directory."""
    if path.is_file():
        return path
    return next((path / name for name in NAMES if (path / name).is_file()), None)


def read_optimizer(path: Path) -> OptimizerState:
    """Return what the optimizer remembers, read with `weights_only=True`.

    Raises:
        MissingExtraError: torch is not installed.
        BadInputError: the file would run code when loaded, is damaged, or holds no optimizer's state.
    """
    state = _optimizer_part(_load(path), path)
    remembered, groups = state["state"], state["param_groups"]
    if not isinstance(remembered, Mapping) or not isinstance(groups, list):
        raise BadInputError("its `state` and `param_groups` are no optimizer's", where=path, remedy=_SAVE)
    names = [pair for group in groups if isinstance(group, Mapping) for pair in _members(group)]
    tensors = tuple(_tensor(name, remembered.get(key)) for key, name in names)
    return OptimizerState(
        path=path,
        tensors=tensors,
        keeps_moments=any(t.zero is not None for t in tensors),
        adaptive=any(isinstance(g, Mapping) and ("betas" in g or "beta2_decay" in g) for g in groups),
    )


def _load(path: Path) -> Any:
    with needs_extra(f"reading {path.name}"):
        import torch
    try:
        # Mapped, so that the state of a large model is read tensor by tensor; only torch's zip format can be.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as fault:  # noqa: BLE001 (damaged files raise what they like)
        if type(fault).__name__ == "UnpicklingError" and "Weights only load failed" in str(fault):
            what = "it is a pickle that would run code when loaded, so sway does not open it"
            raise BadInputError(what, where=path, remedy=_SAVE) from None
        what = f"cannot be read: {type(fault).__name__}: {str(fault)[:160]}"
        raise BadInputError(what, where=path, remedy="copy the checkpoint again") from None


def _optimizer_part(loaded: Any, path: Path) -> Mapping[str, Any]:
    candidates = [loaded]
    if isinstance(loaded, Mapping):
        candidates += [loaded[name] for name in _NESTED if name in loaded]
    for part in candidates:
        if isinstance(part, Mapping) and "state" in part and "param_groups" in part:
            return part
    raise BadInputError("holds no optimizer's `state` and `param_groups`", where=path, remedy=_SAVE)


def _members(group: Mapping[str, Any]) -> list[tuple[Any, str]]:
    keys = group.get("params")
    if not isinstance(keys, list):
        return []
    names = group.get("param_names")
    known = isinstance(names, list) and len(names) == len(keys)
    return [(key, str(names[i]) if known and names else f"tensor {key}") for i, key in enumerate(keys)]


def _tensor(name: str, remembered: Any) -> TrainedTensor:
    if not isinstance(remembered, Mapping):
        return TrainedTensor(name, 0, None, 0, None)
    found = {k: v for k, v in remembered.items() if hasattr(v, "is_floating_point")}
    moments = [v for k, v in found.items() if k != "step" and v.is_floating_point()]
    not_finite = sum(int((~v.isfinite()).sum()) for v in moments)
    key = next((k for k in (*SECOND, *_OTHER) if k in found and found[k].numel()), None)
    if key is None:
        return TrainedTensor(name, 0, _steps(remembered.get("step")), not_finite, None)
    first, sizes = found[key], _sizes(found, key)
    zero = 0.0 if sizes is None else float((sizes == 0).double().mean())
    shape = f" ({' x '.join(map(str, first.shape))})" if name.startswith("tensor ") else ""
    steps = _steps(remembered.get("step"))
    return TrainedTensor(name + shape, first.numel(), steps, not_finite, zero, coded=sizes is None)


def _sizes(found: Mapping[str, Any], key: str) -> Any:
    """Return a moment's numbers or, where they are codes, the scale of each block; None where no scale is known.

    Which code stands for 0 is the optimizer's own affair, but a block whose scale is 0 is all zeros.
    """
    if found[key].is_floating_point():
        return found[key]
    return next((found[k] for k in _SCALES.get(key, ()) if k in found and found[k].numel()), None)


def _steps(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
