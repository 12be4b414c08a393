"""Which modules of a base an adapter's config claims to adapt: PEFT's matching rules, on names alone."""

from __future__ import annotations

import re
from typing import Final

from dlm_sway.adapters.config import AdapterConfig

ALL_LINEAR: Final = "all-linear"
_OUTPUT_HEADS: Final = frozenset({"lm_head", "embed_out"})
_EMBEDDINGS: Final = frozenset(
    {"embed_tokens", "embed_in", "wte", "wpe", "word_embeddings", "embed_positions", "tok_embeddings", "embeddings"}
)


def is_output_head(module: str) -> bool:
    """Return whether the name is that of a causal LM's output head."""
    return _leaf(module) in _OUTPUT_HEADS


def is_embedding(module: str) -> bool:
    """Return whether the name is that of a token or position embedding."""
    return _leaf(module) in _EMBEDDINGS


def is_saved_module(config: AdapterConfig, module: str) -> bool:
    """Return whether `module` is one of `modules_to_save`, or lies inside one."""
    return any(is_saved_as(name, module) for name in config.modules_to_save)


def is_saved_as(name: str, module: str) -> bool:
    """Return whether an entry `name` of `modules_to_save` means `module`, or something that it lies inside.

    PEFT compares the ends of names with no regard to dots, so `norm` also means every `input_layernorm`.
    """
    return f"{name}." in f"{module}."


def is_target(config: AdapterConfig, module: str) -> bool:
    """Return whether PEFT would adapt a linear, embedding or convolution module of this name.

    The rules of PEFT's `check_target_module_exists`: exclusions and `modules_to_save` (here at dots) first, then a
    regular expression over the whole name, or names and dotted suffixes filtered by layer index. `all-linear` is read
    as every module but embeddings and the output head, since a file's names do not tell a layer's class.
    """
    if _is_excluded(config, module) or any(_is_inside(name, module) for name in config.modules_to_save):
        return False
    targets = config.target_modules
    if targets is None:
        return False
    if isinstance(targets, str):
        if targets.lower() == ALL_LINEAR:
            return not is_embedding(module) and not is_output_head(module)
        return re.fullmatch(targets, module) is not None
    return _ends_with_one_of(module, targets) and _is_in_layers(config, module)


def _is_inside(name: str, module: str) -> bool:
    return f".{name}." in f".{module}."


def _is_excluded(config: AdapterConfig, module: str) -> bool:
    excluded = config.exclude_modules
    if not excluded:
        return False
    if isinstance(excluded, str):
        return re.fullmatch(excluded, module) is not None
    return _ends_with_one_of(module, excluded)


def _ends_with_one_of(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _is_in_layers(config: AdapterConfig, module: str) -> bool:
    if config.layers_to_transform is None:
        return True
    patterns = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in config.layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
    found = next((match for pattern in patterns if (match := re.match(pattern, module))), None)
    return found is not None and int(found.group(1)) in config.layers_to_transform


def _leaf(module: str) -> str:
    return module.rpartition(".")[2]
