"""Which null each trained tensor gets, by its name; a tensor without a rule stops the calibration.

The names are those of a PEFT model's parameters (`q_proj.lora_B.default.weight`), of a saved adapter (the same
without the adapter's name, and without `modules_to_save`), and of a full fine-tune (the base's own names). What is
not recognised is refused: a tensor that no null touches would stay learned in every draw, and the null distribution
would no longer be one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from dlm_sway.core.errors import NullRuleError


class Rule(StrEnum):
    """What a rotation null does to one trained tensor."""

    KEEP = "keep"
    ROTATE_OUTPUT = "rotate_output"
    PERMUTE_MAGNITUDE = "permute_magnitude"
    SIGN_PERMUTATION = "sign_permutation"
    SIGNED_PERMUTATION = "signed_permutation"


_MAGNITUDE: Final = "lora_magnitude_vector"
# (holder, field). PEFT keeps an embedding's factors as bare parameters without a field; its hidden side is B. AdaLoRA
# has bare `lora_A` and `lora_B` too, with a third factor between them: those are not listed, and so refused.
_LORA_RULES: Final = {
    ("lora_A", "weight"): Rule.KEEP,
    ("lora_B", "weight"): Rule.ROTATE_OUTPUT,
    ("lora_B", "bias"): Rule.SIGN_PERMUTATION,
    ("lora_embedding_A", ""): Rule.KEEP,
    ("lora_embedding_B", ""): Rule.ROTATE_OUTPUT,
    (_MAGNITUDE, ""): Rule.PERMUTE_MAGNITUDE,
    (_MAGNITUDE, "weight"): Rule.PERMUTE_MAGNITUDE,
}
_LORA_HOLDERS: Final = frozenset(holder for holder, _ in _LORA_RULES)
_PLAIN_RULES: Final = {"weight": Rule.SIGNED_PERMUTATION, "bias": Rule.SIGN_PERMUTATION}

# A LoRA that hangs on one of these wraps a bare parameter of several experts (PEFT's `target_parameters`): which
# side of it is the output depends on the model and on PEFT's version, so turning one side may turn the wrong one.
_PARAMETER_OWNERS: Final = frozenset({"experts", "base_layer"})

# The tensors of PEFT's other methods. Some end in `.weight`, and would pass for a module that was trained in full.
_OTHER_METHODS: Final = (
    *("adamss_", "adaption_", "beft_", "boft_", "bone_", "c3a_", "cartridge", "cpt_", "deft_", "delora_", "fourierft_"),
    *("frod_", "glora_", "gralora_", "hada_", "hira_", "hra_", "ia3_", "internal_xlora", "lily_", "ln_tuning_"),
    *("lokr_", "lora_", "miss_", "oft_", "osf_", "peanut_", "poly_", "prefix_", "prompt_", "psoft_", "pvera_"),
    *("randlora_", "road_", "shadow_", "shira_", "supertuning_", "tinylora_", "token_adapter", "trainable_tokens_"),
    *("unilora_", "vblora_", "vera_", "waveft_", "xlora"),
)


def rule_for(tensor_name: str) -> Rule:
    """Return the rule for a trained tensor, from its name alone.

    LoRA on bare expert parameters is known by the module it hangs on; a caller that has the adapter's config refuses
    `target_parameters` there as well.

    Raises:
        NullRuleError: no rule is known, as for IA3, VeRA, LoHa, AdaLoRA and prompt tuning; the error names the tensor.
    """
    path = tensor_name.split(".")
    rule = _lora_rule(path) if _LORA_HOLDERS.intersection(path) else _plain_rule(path)
    if rule is None:
        raise NullRuleError(
            "no rotation null is defined for this trained tensor",
            where=tensor_name,
            remedy="the adapter can be scored, but `learned` cannot be decided for it",
        )
    return rule


def has_rule_whole(tensor_name: str) -> bool:
    """Return whether a tensor that was trained whole has a rule, from its name alone."""
    return _plain_rule(tensor_name.split(".")) is not None


def _lora_rule(path: list[str]) -> Rule | None:
    at = next(i for i, part in enumerate(path) if part in _LORA_HOLDERS)
    module, tail = path[:at], path[at + 1 :]
    field = tail.pop() if tail[-1:] in (["weight"], ["bias"]) else ""
    # What is left of the tail is the adapter's name, which a user chose: it is not looked at.
    if len(tail) > 1 or not module or module[-1] in _PARAMETER_OWNERS or _other_method(module):
        return None
    return _LORA_RULES.get((path[at], field))


def _plain_rule(path: list[str]) -> Rule | None:
    if "modules_to_save" in path:
        at = path.index("modules_to_save")
        path = path[:at] + path[at + 2 :]  # without the adapter's name, which a user chose
    return None if not path or _other_method(path) else _PLAIN_RULES.get(path[-1])


def _other_method(parts: list[str]) -> bool:
    return any(part.startswith(_OTHER_METHODS) for part in parts)
