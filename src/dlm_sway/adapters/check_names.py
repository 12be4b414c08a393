"""Faults in what is there and what is not: tensors against the config, and against the base's modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from dlm_sway.adapters.base_files import BaseFiles
from dlm_sway.adapters.facts import OWN_PARAMETERS, Facts
from dlm_sway.adapters.inspection import Fault, Severity
from dlm_sway.adapters.naming import PREFIX, Part, TensorKey, parse_name
from dlm_sway.adapters.targets import is_embedding, is_output_head, is_saved_as, is_target
from dlm_sway.adapters.wording import counted, listed

# How names go wrong: wrappers left in by training frameworks, and models saved with or without their head.
_RENAMINGS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("with `_orig_mod.` of torch.compile removed", lambda module: module.replace("_orig_mod.", "")),
    ("with `_fsdp_wrapped_module.` of FSDP removed", lambda module: module.replace("_fsdp_wrapped_module.", "")),
    ("with `module.` of DistributedDataParallel removed", lambda module: module.removeprefix("module.")),
    ("with `model.` in front", lambda module: f"model.{module}"),
    ("without `model.` in front", lambda module: module.removeprefix("model.")),
    ("with `transformer.` in front", lambda module: f"transformer.{module}"),
    ("without `transformer.` in front", lambda module: module.removeprefix("transformer.")),
)

_ADAPTER_NAME: Final = re.compile(
    r"\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)\.[^.]+(?:\.weight|\.bias)?$"
)


def check_recognised(facts: Facts) -> Iterator[Fault]:
    """Name tensors whose names are not of the form that PEFT loads."""
    strange = {Part.UNKNOWN, Part.OTHER_METHOD, Part.PROMPT} if facts.config.is_lora else {Part.UNKNOWN}
    names = tuple(key.name for key in facts.keys if key.part in strange)
    if names:
        yield Fault(
            code="unrecognised_tensor",
            severity="fail" if facts.config.is_lora else "warn",
            message=f"{counted(len(names), 'tensor')} under names that PEFT does not load: {listed(names)}",
            remedy=_naming_hint(names),
            tensors=names,
        )


def check_partners(facts: Facts) -> Iterator[Fault]:
    """Name factors without their partner, DoRA modules without a magnitude, and saved modules without a tensor."""
    missing = [*_missing_factors(facts), *_missing_magnitudes(facts), *_missing_saved(facts)]
    if missing:
        yield Fault(
            code="missing_tensor",
            severity="fail",
            message=f"{counted(len(missing), 'tensor')} missing from the file: {listed(missing)}",
            remedy="save the adapter again from the trained model; on loading PEFT fills the gap with untrained values",
            tensors=tuple(missing),
        )


def check_targets(facts: Facts) -> Iterator[Fault]:
    """Name modules of the base that the config targets and the file holds nothing for.

    PEFT gives them factors with B = 0 on loading, silently, so a lost tensor looks like an untrained module. Experts
    of a mixture are left out, because transformers fuses them on loading.
    """
    if facts.base is None or not facts.config.is_lora:
        return
    names = [m for m in facts.base.adaptable if is_target(facts.config, m) and m not in facts.pairs]
    untouched = tuple(name for name in names if ".experts." not in name)
    if untouched:
        yield Fault(
            code="untouched_target",
            severity=_severity(facts),
            message=f"{counted(len(untouched), 'module')} of the base targeted by the config without a tensor in the "
            f"file: {listed(untouched)}",
            remedy="save the adapter again from the trained model, or narrow target_modules to what was trained",
            tensors=untouched,
        )


def check_landing(facts: Facts) -> Iterator[Fault]:
    """Name tensors that land on no module of the base: PEFT drops them with a warning at most."""
    base = facts.base
    if base is None:
        return
    stray = [key for key in facts.keys if key.module and not _lands(key, facts=facts, base=base)]
    if stray:
        names = tuple(key.name for key in stray)
        hint = _rename_hint(stray, base=base)
        yield Fault(
            code="unexpected_tensor",
            severity=_severity(facts),
            message=f"{counted(len(names), 'tensor')} that match no module of the base: {listed(names)}",
            remedy=hint or "check that this is the base the adapter was trained on",
            tensors=names,
        )


def check_magnitudes(facts: Facts) -> Iterator[Fault]:
    """Name DoRA magnitudes in an adapter whose config says it is no DoRA: PEFT drops them."""
    names = tuple(key.name for key in facts.keys if key.part is Part.MAGNITUDE)
    if names and facts.config.is_lora and not facts.config.use_dora:
        yield Fault(
            code="unexpected_magnitude",
            severity="fail",
            message=f"{counted(len(names), 'magnitude vector')} though use_dora is not set: {listed(names)}",
            remedy="set use_dora to true in adapter_config.json if it was trained as DoRA",
            tensors=names,
        )


def _missing_factors(facts: Facts) -> Iterator[str]:
    for pair in facts.pairs.values():
        if pair.a is None and pair.b is not None:
            yield pair.b.name.replace("lora_B", "lora_A").replace("lora_embedding_B", "lora_embedding_A")
        if pair.b is None and pair.a is not None:
            yield pair.a.name.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")


def _missing_magnitudes(facts: Facts) -> Iterator[str]:
    if facts.config.use_dora:
        have = {key.module for key in facts.keys if key.part is Part.MAGNITUDE}
        yield from (f"{PREFIX}{module}.lora_magnitude_vector" for module in facts.pairs if module not in have)


def _missing_saved(facts: Facts) -> Iterator[str]:
    for name in facts.config.modules_to_save:
        # A tied head is one tensor with the embedding, and PEFT may save it under either name.
        tied = facts.base is not None and facts.base.tied and (is_output_head(name) or is_embedding(name))
        if not tied and not any(is_saved_as(name, key.module) for key in facts.keys):
            yield f"{name} (modules_to_save)"


def _lands(key: TensorKey, *, facts: Facts, base: BaseFiles) -> bool:
    if key.part in {Part.UNKNOWN, Part.WRAPPED}:
        return True  # another check names them
    if key.part in OWN_PARAMETERS:
        return key.parameter in base.parameters or (key.part is Part.WHOLE and key.module in base.modules)
    if facts.config.target_parameters and key.module not in base.modules:
        return base.has_container(key.module.removesuffix(".base_layer"))
    return key.module in base.modules or (not facts.config.is_lora and base.has_container(key.module))


def _severity(facts: Facts) -> Severity:
    # Where the loaded model's names are not the files' names, a difference proves nothing.
    base = facts.base
    renamed = base is not None and base.is_renamed_on_load
    return "warn" if renamed or facts.config.replicates_layers else "fail"


def _rename_hint(stray: list[TensorKey], *, base: BaseFiles) -> str:
    for how, rename in _RENAMINGS:
        if all(rename(key.module) != key.module and rename(key.module) in base.modules for key in stray):
            return f"they match {how}: rename the tensors, or save the adapter from the model class that sway loads"
    return ""


def _naming_hint(names: tuple[str, ...]) -> str:
    if all(parse_name(PREFIX + name).part is not Part.UNKNOWN for name in names):
        return f"they lack the prefix `{PREFIX}`: save with `PeftModel.save_pretrained`"
    if all(_ADAPTER_NAME.search(name) for name in names):
        return "the adapter's own name is still in them: save with `PeftModel.save_pretrained`"
    return "save the adapter with `PeftModel.save_pretrained`"
