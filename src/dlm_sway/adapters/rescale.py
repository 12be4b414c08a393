"""A copy of an adapter whose effect is `lam` times the original's.

What LoRA adds is `alpha / r * B A` (`alpha / sqrt(r)` under rsLoRA), so `lam` times the effect is `lam` times alpha,
and no weight need be touched. Whatever an adapter holds besides has another law: what was trained whole is stored as
the new value and not as a change, and DoRA's magnitudes stand beside the norms of the base. Both need the base, so
they are refused here rather than scaled by half.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm_sway.adapters.base_copies import is_copy
from dlm_sway.adapters.config import CONFIG_NAME, AdapterConfig, holds_base, load_config
from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.adapters.naming import FACTORS_A, FACTORS_B, Part, parse_name
from dlm_sway.adapters.tensors import TensorFile, read_metadata, write_with_metadata
from dlm_sway.adapters.weights_file import WEIGHTS_NAME, open_weights
from dlm_sway.core.errors import AdapterError, BadInputError
from dlm_sway.core.folders import whole_folder

RECORD: Final = "sway_rescaled_by"
"""Key in the metadata of the weights file: the scale against the adapter as it was trained."""
_FACTORS: Final = FACTORS_A | FACTORS_B | {Part.LORA_B_BIAS}
_OTHER_LAWS: Final = ("arrow_config", "kasa_config", "monteclora_config")
_COPIED: Final = frozenset({".jinja", ".json", ".md", ".model", ".tiktoken", ".txt"})
_TRAINERS: Final = frozenset({"trainer_state.json"})
_SMALL: Final = 64 * 2**20
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Rescaled:
    """What was written.

    Attributes:
        out: the new adapter's directory.
        lam: its effect over that of the adapter it was made from.
        recorded: its effect over that of the adapter as trained, if that one was rescaled before.
        alpha: `lora_alpha` before and after.
        copied: other files that came along.
    """

    out: Path
    lam: float
    recorded: float
    alpha: tuple[float, float]
    copied: tuple[str, ...]


def rescale(adapter: Path, lam: float, out: Path, *, force: bool = False) -> Rescaled:
    """Write an adapter with `lam` times the effect of `adapter` to the directory `out`; the original is not touched.

    Small text files beside the weights (tokenizer, model card) come along; the state of a trainer does not.

    Args:
        adapter: a PEFT directory with LoRA or rsLoRA weights in safetensors.
        lam: positive and finite.
        out: a directory that does not exist, or is empty.
        force: whether another adapter that stands at `out` may be replaced.

    Raises:
        BadInputError: `lam` or `out` cannot be used.
        AdapterError: the adapter cannot be read, or its effect cannot be scaled exactly without its base.
        CannotRunError: the system refused a write; nothing is left behind.
    """
    _check_lam(lam)
    config = load_config(adapter)
    raw = read_json_object(adapter / CONFIG_NAME)
    weights = _weights(adapter)
    if reason := why_not(config, raw, weights):
        raise AdapterError(f"cannot be rescaled exactly: {reason}", where=adapter, remedy=_REMEDY)
    _check_out(adapter, out, force=force)
    _check_products(lam, config, _recorded(weights))
    alpha = config.lora_alpha
    recorded = _recorded(weights) * lam
    beside = _beside(adapter)
    with whole_folder(out) as part:
        changed = raw | {"lora_alpha": _times(alpha, lam)}
        if config.alpha_pattern:
            changed["alpha_pattern"] = {name: _times(value, lam) for name, value in config.alpha_pattern.items()}
        (part / CONFIG_NAME).write_text(json.dumps(changed, indent=2, ensure_ascii=False), encoding="utf-8")
        write_with_metadata(weights.path, part / WEIGHTS_NAME, {RECORD: repr(recorded)})
        for path in beside:
            shutil.copyfile(path, part / path.name)
    return Rescaled(out, float(lam), recorded, (float(alpha), float(alpha * lam)), tuple(p.name for p in beside))


_REMEDY: Final = "train it again with a smaller lora_alpha or learning rate, or scale it where the base is loaded"


def why_not(config: AdapterConfig, raw: Mapping[str, Any], weights: TensorFile) -> str | None:
    """Return why alpha alone does not scale the whole effect of this adapter, or None when it does."""
    if not config.is_lora:
        return f"it is of type {config.peft_type or 'unknown'}, and only LoRA has a scale"
    if config.use_dora:
        return "DoRA's magnitudes are scaled against the norms of the base, which this directory does not hold"
    if holds_base(config.init_lora_weights):
        return f"init_lora_weights is {config.init_lora_weights!r}, so its factors also hold a part of the base"
    if other := next((key for key in _OTHER_LAWS if raw.get(key)), None):
        return f"{other} is set, and what it adds is not proportional to alpha"
    keys = [parse_name(name) for name in weights.infos]
    adapted = {key.module for key in keys if key.part in FACTORS_A | FACTORS_B}
    others = (key for key in keys if key.part not in _FACTORS)
    strange = [key.name for key in others if not is_copy(key, adapted=adapted, config=config)]
    if strange:
        more = f" and {len(strange) - _NAMED} more" if len(strange) > _NAMED else ""
        return f"{', '.join(strange[:_NAMED])}{more}: stored as the new value, and only the base knows the change"
    return None if keys else "it holds no tensors"


def _weights(adapter: Path) -> TensorFile:
    found = open_weights(adapter)
    if isinstance(found, Fault):
        raise AdapterError(found.message, where=adapter, remedy=found.remedy)
    return found


def _check_lam(lam: float) -> None:
    if not (math.isfinite(lam) and lam > 0):
        what = "at 0 nothing of it is left" if lam == 0 else "a scale is positive and finite"
        raise BadInputError(f"{lam:g} is no scale for an adapter: {what}", where="--lam", remedy="use one such as 0.5")


def _check_products(lam: float, config: AdapterConfig, recorded: float) -> None:
    """Return if every alpha, and the scale that is recorded, has a number for what `lam` makes of it."""
    for value in (config.lora_alpha, *(config.alpha_pattern or {}).values(), recorded):
        scaled = float(value) * lam
        if value and not (math.isfinite(scaled) and scaled):
            what = f"{lam:g} times {value:g} is too {'small' if math.isfinite(scaled) else 'large'} for a number"
            raise BadInputError(what, where="--lam", remedy="use one nearer to 1")


def _check_out(adapter: Path, out: Path, *, force: bool) -> None:
    source, target = adapter.resolve(), out.resolve()
    if source.is_relative_to(target):
        raise BadInputError("would replace the adapter itself", where=out, remedy="name another directory")
    if not target.parent.is_dir():
        raise BadInputError(f"{target.parent} is no directory that exists", where=out, remedy="create it first")
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInputError("is a file, not a directory", where=out, remedy="name another directory")
    if not any(target.iterdir()):
        return
    if not (target / CONFIG_NAME).is_file():
        raise BadInputError("holds something else than an adapter", where=out, remedy="name another directory")
    if not force:
        raise BadInputError("holds an adapter already", where=out, remedy="give --force to replace it")


def _recorded(weights: TensorFile) -> float:
    """Return what an adapter that was rescaled before says of itself, else 1."""
    try:
        value = float(read_metadata(weights.path).get(RECORD, "1"))
    except ValueError:
        return 1.0
    return value if math.isfinite(value) and value > 0 else 1.0


def _times(alpha: float, lam: float) -> float | int:
    scaled = alpha * lam
    return int(scaled) if scaled == int(scaled) else scaled


def _beside(adapter: Path) -> list[Path]:
    names = {CONFIG_NAME, WEIGHTS_NAME, *_TRAINERS}
    return sorted(
        path
        for path in adapter.iterdir()
        if path.name not in names and path.suffix in _COPIED and path.is_file() and path.stat().st_size <= _SMALL
    )
