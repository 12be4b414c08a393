"""What the names of an adapter's tensors say: which module, and which part of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "base_model.model."


class Part(StrEnum):
    """The role of a tensor in its module."""

    LORA_A = "lora_A"
    LORA_B = "lora_B"
    LORA_B_BIAS = "lora_B.bias"
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    MAGNITUDE = "lora_magnitude_vector"
    WHOLE = "whole"
    """A parameter of the model itself, trained whole (`modules_to_save`) or saved along (embeddings)."""
    BIAS = "bias"
    TOKENS = "trainable_tokens_delta"
    PROMPT = "prompt"
    WRAPPED = "wrapped"
    """A name that still carries PEFT's `modules_to_save` or `original_module` wrapper; PEFT does not load it."""
    OTHER_METHOD = "other_method"
    UNKNOWN = "unknown"


FACTORS_A: Final = frozenset({Part.LORA_A, Part.EMBEDDING_A})
FACTORS_B: Final = frozenset({Part.LORA_B, Part.EMBEDDING_B})

_SUFFIXES: Final = (
    (".lora_A.weight", Part.LORA_A),
    (".lora_B.weight", Part.LORA_B),
    (".lora_B.bias", Part.LORA_B_BIAS),
    (".lora_embedding_A", Part.EMBEDDING_A),
    (".lora_embedding_B", Part.EMBEDDING_B),
    (".lora_magnitude_vector.weight", Part.MAGNITUDE),
    (".lora_magnitude_vector", Part.MAGNITUDE),
    (".token_adapter.trainable_tokens_delta", Part.TOKENS),
    (".trainable_tokens_delta", Part.TOKENS),
)
# The prefixes that PEFT's other methods give their parameters; AdaLoRA's three are bare parameters without `.weight`.
_OTHER: Final = re.compile(
    r"(?:^|\.)(?:(?:ia3|vera|pvera|hada|lokr|oft|boft|ln_tuning|vblora|fourierft|hra|miss|bone|randlora|shira|c3a|road"
    r"|waveft|osf|delora|gralora|adamss|beft|deft|frod|glora|hira|lily|peanut|poly|psoft|shadow|supertuning|tinylora"
    r"|unilora)_\w+|adaption_\w+|lora_E$|lora_A$|lora_B$)"
)
_WRAPPER: Final = re.compile(r"\.(?:modules_to_save|original_module)\.")
_PROMPT: Final = re.compile(r"^(?:base_model\.)?(?:prompt_embeddings|prompt_encoder\.|past_key_values)")


@dataclass(frozen=True, slots=True)
class TensorKey:
    """A tensor's name, taken apart.

    Attributes:
        name: as in the file.
        module: the module of the base, without PEFT's prefix; empty when the name has none.
        part: the tensor's role.
        parameter: the base's own parameter that the tensor replaces (`model.norm.weight`); empty for adapter parts.
    """

    name: str
    module: str
    part: Part
    parameter: str = ""


def parse_name(name: str) -> TensorKey:
    """Return module and role of a tensor that PEFT saved.

    PEFT writes `base_model.model.` + the module + the part, without the adapter's name. A LoRA name in any other
    form (an adapter name left in, no prefix) is `Part.UNKNOWN`, because PEFT would not load it.
    """
    if _PROMPT.match(name):
        return TensorKey(name, "", Part.PROMPT)
    if not name.startswith(PREFIX):
        other = name.startswith("base_model.") and _OTHER.search(name)
        return TensorKey(name, "", Part.OTHER_METHOD if other else Part.UNKNOWN)
    path = name.removeprefix(PREFIX)
    for suffix, part in _SUFFIXES:
        if path.endswith(suffix):
            return TensorKey(name, path.removesuffix(suffix), part)
    if match := _OTHER.search(path):
        return TensorKey(name, path[: match.start()], Part.OTHER_METHOD)
    if match := _WRAPPER.search(path):
        return TensorKey(name, path[: match.start()], Part.WRAPPED)
    return _own_parameter(name, path)


def unwrapped(name: str) -> str:
    """Return the name under which PEFT loads what a wrapper of `modules_to_save` holds, as it saves the wrapper."""
    return _WRAPPER.sub(".", name)


def _own_parameter(name: str, path: str) -> TensorKey:
    # PEFT wraps the module it adapts, so that module's own parameters are saved under `base_layer`.
    owner, _, leaf = path.replace(".base_layer.", ".").rpartition(".")
    if not owner or re.search(r"(?:^|\.)lora_", path):
        return TensorKey(name, owner, Part.UNKNOWN)
    return TensorKey(name, owner, Part.BIAS if leaf == "bias" else Part.WHOLE, f"{owner}.{leaf}")
