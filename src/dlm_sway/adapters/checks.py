"""Q0: is the adapter file sound, and does every tensor land on a module of this base at the scale that was trained?

Static, without torch, without unpickling, and one tensor in memory at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from dlm_sway.adapters import (
    check_config,
    check_leftovers,
    check_names,
    check_shapes,
    check_size,
    check_values,
    check_vocabulary,
)
from dlm_sway.adapters.base_files import BaseFiles, missing_shards, open_base
from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.config import AdapterConfig, load_config
from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import AdapterFacts, Fault, Inspection, ModuleRow
from dlm_sway.adapters.module_rows import rows_of
from dlm_sway.adapters.tensor_stats import stats_of
from dlm_sway.adapters.tensors import TensorFile, sha256_of
from dlm_sway.adapters.weights_file import open_weights

__all__ = ["Fault", "Inspection", "ModuleRow", "inspect_adapter"]

Check: TypeAlias = Callable[[Facts], Iterator[Fault]]

FILE_CHECKS: Final[tuple[Check, ...]] = (
    check_values.check_formats,
    check_values.check_empty_tensors,
    check_values.check_finite,
    check_values.check_zero,
    check_names.check_recognised,
    check_names.check_partners,
    check_names.check_magnitudes,
    check_shapes.check_swapped,
    check_shapes.check_rank,
    check_shapes.check_shapes,
    check_size.check_scale,
    check_leftovers.check_wrapped,
    check_leftovers.check_leftovers,
    check_leftovers.check_biases,
)
BASE_CHECKS: Final[tuple[Check, ...]] = (
    check_names.check_landing,
    check_names.check_targets,
    check_size.check_change,
    check_size.check_directions,
    check_vocabulary.check_resized,
    check_vocabulary.check_tying,
    check_vocabulary.check_tokenizer,
)
NEED_THE_BASE: Final = (
    "unexpected_tensor",
    "untouched_target",
    "wrong_shape",
    "change_too_large",
    "change_overrides",
    "resized_vocabulary",
    "tied_weights",
    "tokenizer_too_long",
)
"""Codes of the faults that cannot be looked for, or only in part, without the base."""

_SHOWN: Final = 3  # missing files that a message names
_ORDER: Final = {"fail": 0, "warn": 1, "info": 2}


def inspect_adapter(adapter_dir: Path, base: str | None = None, *, revision: str | None = None) -> Inspection:
    """Return every fault of an adapter, and a row of figures for each module that it changes.

    Never stops at the first fault, except where the weights file is absent or refused. Reads headers of the base's
    safetensors files, and the weights of adapted modules one block at a time.

    Args:
        adapter_dir: what `PeftModel.save_pretrained` wrote.
        base: a local directory or a Hub id in the local cache; the one that the adapter records when None.
        revision: of a Hub id; when None, the one that the adapter records for this base, then `main`.

    Raises:
        AdapterError: a path is missing, the directory is no adapter, or a file is damaged.
    """
    config = load_config(adapter_dir)
    name = base or config.base_model_name_or_path
    faults = [
        *check_config.check_peft_type(config),
        *check_config.check_base_name(config, base=base),
        *check_config.check_initialisation(config),
    ]
    weights = open_weights(adapter_dir)
    if isinstance(weights, Fault):
        return _inspection(adapter_dir, name, _describe(config, file=None), [weights, *faults], not_done=NEED_THE_BASE)
    files, missing = _read_base(name, revision=revision or config.base_revision(base), is_recorded=base is None)
    facts = Facts(adapter_dir, config, weights, stats_of(weights), files)
    facts = dataclasses.replace(facts, rows=rows_of(facts))
    checks = FILE_CHECKS if files is None else (*BASE_CHECKS, *FILE_CHECKS)
    faults += [*missing, *(fault for check in checks for fault in check(facts))]
    not_done = NEED_THE_BASE if files is None else ()
    return _inspection(adapter_dir, name, _describe(config, file=weights), faults, rows=facts.rows, not_done=not_done)


def _read_base(name: str | None, *, revision: str | None, is_recorded: bool) -> tuple[BaseFiles | None, list[Fault]]:
    if name is None:
        return None, [_not_checked("no base is named", "name one with --base")]
    location = locate_base(name, revision=revision, must_exist=not is_recorded)
    if location.directory is None:
        return None, [_not_checked(location.reason, location.remedy)]
    if missing := missing_shards(location.directory):
        return None, [_incomplete(location.directory, missing)]
    files = open_base(location.directory)
    if not files.is_quantised:
        return files, []
    return files, [
        Fault(
            code="packed_base",
            severity="info",
            message="the base is quantised: shapes and ||delta W|| / ||W|| are not checked against packed weights",
            remedy="name the unquantised base as --base to check them",
        )
    ]


def _incomplete(directory: Path, missing: tuple[str, ...]) -> Fault:
    # Half a base would call every tensor for the other half stray, so none of it is read.
    shown, more = ", ".join(missing[:_SHOWN]), f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return Fault(
        code="base_incomplete",
        severity="warn",
        message=f"the index of the base {directory} names {shown}{more}, which the folder does not hold: "
        "nothing was checked against the base",
        remedy="download or copy the base again",
    )


def _not_checked(reason: str, remedy: str) -> Fault:
    message = f"{reason}: nothing was checked against a base"
    return Fault(code="base_not_checked", severity="info", message=message, remedy=remedy)


def _describe(config: AdapterConfig, *, file: TensorFile | None) -> AdapterFacts:
    infos = () if file is None else file.infos.values()
    return AdapterFacts(
        peft_type=config.peft_type,
        base_recorded=config.base_model_name_or_path,
        rank=config.r if config.is_lora else None,
        alpha=config.lora_alpha if config.is_lora else None,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        target_modules=config.target_modules,
        modules_to_save=config.modules_to_save,
        bias=config.bias,
        n_tensors=len(infos),
        n_parameters=sum(info.n_elements for info in infos),
        n_bytes=None if file is None else file.path.stat().st_size,
        sha256=None if file is None else sha256_of(file.path),
    )


def _inspection(
    adapter_dir: Path,
    base: str | None,
    facts: AdapterFacts,
    faults: list[Fault],
    *,
    rows: tuple[ModuleRow, ...] = (),
    not_done: tuple[str, ...] = (),
) -> Inspection:
    return Inspection(
        adapter=str(adapter_dir),
        base=base,
        facts=facts,
        faults=tuple(sorted(faults, key=lambda fault: _ORDER[fault.severity])),
        modules=rows,
        not_done=not_done,
    )
