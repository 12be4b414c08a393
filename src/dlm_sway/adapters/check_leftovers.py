"""Faults in the base's own parameters that travel with an adapter."""

from __future__ import annotations

from collections.abc import Iterator

from dlm_sway.adapters.base_copies import equals_base
from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.naming import Part, TensorKey, unwrapped
from dlm_sway.adapters.wording import counted, listed


def check_wrapped(facts: Facts) -> Iterator[Fault]:
    """Name tensors saved under PEFT's wrapper of `modules_to_save` alone, which it does not load.

    PEFT itself saves a resized embedding that was trained whole three times: under its plain name, which it loads, and
    as both sides of the wrapper.
    """
    wrapped = (key for key in facts.keys if key.part is Part.WRAPPED)
    names = tuple(key.name for key in wrapped if unwrapped(key.name) not in facts.file.infos)
    if names:
        yield Fault(
            code="wrapped_module",
            severity="fail",
            message=f"{counted(len(names), 'tensor')} still carry the name of PEFT's modules_to_save wrapper and are "
            f"not loaded: {listed(names)}",
            remedy="save with `PeftModel.save_pretrained` instead of the raw state dict",
            tensors=names,
        )


def check_leftovers(facts: Facts) -> Iterator[Fault]:
    """Name parameters of the base that the file holds and the config does not account for.

    PEFT writes them into the base itself on loading, so switching the adapter off does not bring the base back, and
    a comparison of the two misses their change. A copy equal to the base's own values is harmless (PEFT saves the
    embedding beside its LoRA) and is not reported.
    """
    stray = [key for key in facts.stray_parameters if facts.config.bias == "none" or key.part is not Part.BIAS]
    names = tuple(key.name for key in stray if not _equals_base(facts, key))
    if names:
        yield Fault(
            code="leftover_module",
            severity="warn",
            message=f"{counted(len(names), 'tensor')} of the base's own that modules_to_save does not name: "
            f"{listed(names)}; they overwrite the base on loading",
            remedy="name their modules in modules_to_save, or save with save_embedding_layers=False",
            tensors=names,
        )


def check_biases(facts: Facts) -> Iterator[Fault]:
    """Say that trained biases stay when the adapter is switched off, as PEFT's own documentation warns."""
    names = tuple(
        key.name
        for key in facts.stray_parameters
        if facts.config.bias != "none" and key.part is Part.BIAS and not _equals_base(facts, key)
    )
    if names:
        yield Fault(
            code="trained_bias",
            severity="warn",
            message=f"{counted(len(names), 'bias').replace('biass', 'biases')} trained with bias={facts.config.bias}: "
            "PEFT writes them into the base, and disabling the adapter does not take them out",
            remedy="train with bias='none' unless the adapter is always merged",
            tensors=names,
        )


def _equals_base(facts: Facts, key: TensorKey) -> bool:
    return facts.base is not None and equals_base(facts.file, key, base=facts.base)
