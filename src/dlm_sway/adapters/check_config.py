"""Faults that the config alone shows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from dlm_sway.adapters.base_location import same_base
from dlm_sway.adapters.config import AdapterConfig, holds_base
from dlm_sway.adapters.inspection import Fault

KNOWN_PEFT_TYPES: Final = frozenset({
    "ADALORA", "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "BONE", "C3A", "CARTRIDGE", "CPT", "DEFT", "DELORA",
    "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA",
    "MISS", "MULTITASK_PROMPT_TUNING", "OFT", "OSF", "P_TUNING", "PEANUT", "POLY", "PREFIX_TUNING",
    "PROMPT_TUNING", "PSOFT", "PVERA", "RANDLORA", "ROAD", "SHADOW", "SHIRA", "SUPERTUNING", "TINYLORA",
    "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT", "XLORA",
})  # fmt: skip
"""The methods of PEFT 0.21, and BONE of earlier ones."""


def check_peft_type(config: AdapterConfig) -> Iterator[Fault]:
    """Name a `peft_type` that is absent or unknown, and methods for which sway has no rotation null."""
    kind = config.peft_type
    if kind is None:
        remedy = 'restore the config that PEFT saved; for LoRA it says "peft_type": "LORA"'
        yield Fault(code="unknown_peft_type", severity="fail", message="the config names no peft_type", remedy=remedy)
    elif kind not in KNOWN_PEFT_TYPES:
        near = difflib.get_close_matches(kind, KNOWN_PEFT_TYPES, n=1)
        yield Fault(
            code="unknown_peft_type",
            severity="fail",
            message=f"peft_type {kind} is not known",
            remedy=f"did you mean {near[0]}?" if near else "use an adapter that PEFT can load",
        )
    elif not config.is_lora:
        yield Fault(
            code="no_rotation_null",
            severity="info",
            message=f"{kind} has no rotation null: sway compares it with the noise floor and with control text only",
        )


def check_base_name(config: AdapterConfig, *, base: str | None) -> Iterator[Fault]:
    """Name a base other than the one recorded, by name; whether it fits is for the other checks."""
    recorded = config.base_model_name_or_path
    if recorded is None:
        yield Fault(
            code="base_unrecorded",
            severity="info",
            message="the adapter does not say which base it was trained on",
            remedy="name it with --base",
        )
    elif base is not None and not same_base(recorded, base):
        yield Fault(
            code="base_mismatch",
            severity="warn",
            message=f"the adapter was trained on {recorded}, not on {base}",
            remedy=f"name {recorded} as --base unless the two are the same model",
        )


def check_initialisation(config: AdapterConfig) -> Iterator[Fault]:
    """Say when the factors started from a part of the base's own weights, so that their size is not the change."""
    name = config.init_lora_weights
    if holds_base(name):
        yield Fault(
            code="altered_base",
            severity="info",
            message=f"initialised by {name}, which moves a part of the base's weights into the factors: "
            "the norms below are not the size of the change",
            remedy="save with `path_initial_model_for_weight_conversion` to get a plain LoRA",
        )
