"""The settings of a base as transformers reads them, in the names that mlx_lm asks for.

transformers 5 writes `rope_parameters`, and leaves out what is an architecture's default; mlx_lm asks most models for
`rope_theta`, has defaults of its own, and says nothing where the two differ. So a model that was saved anew would be
computed with another rotary base.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from dlm_sway.core.errors import CannotRunError

# What changes the numbers and is easily overlooked, with the value at which it changes nothing.
_NEUTRAL: Final[Mapping[str, Any]] = {
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "mlp_bias": False,
    "scale_attn_by_inverse_layer_idx": False,
    "use_bidirectional_attention": False,
    "use_sliding_window": False,
}


def complete(raw: Mapping[str, Any], resolved: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """Return the settings that the file lacks, or holds under another name.

    Args:
        raw: `config.json`; what it says stays.
        resolved: the same with transformers' defaults.
        asked: the names that mlx_lm's model asks for.
    """
    found = {k: v for k, v in resolved.items() if v is not None} | _rope(resolved) | _windows(resolved)
    if "n_positions" in found:
        found["n_ctx"] = found["n_positions"]
    return {k: v for k, v in found.items() if k in asked and raw.get(k) is None}


def require_read(resolved: Mapping[str, Any], asked: Collection[str], *, tied: bool, where: str) -> None:
    """Return if mlx_lm's model asks for every setting that would change its numbers.

    Args:
        resolved: the settings, with transformers' defaults.
        asked: the names that mlx_lm's model asks for.
        tied: whether the head of mlx_lm's model is its embedding.
        where: the base, for errors.

    Raises:
        CannotRunError: one is left out, so the numbers would be those of another model.
    """
    lost = [k for k, idle in _NEUTRAL.items() if k not in asked and resolved.get(k, idle) not in (idle, None)]
    if lost:
        what = f"mlx_lm does not read {', '.join(f'{k} = {resolved[k]!r}' for k in lost)} of this base"
        raise CannotRunError(what, where=where, remedy="use a backend of kind hf for it")
    if tied and resolved.get("tie_word_embeddings") is False:
        what = "the base has a head of its own, and mlx_lm ties this architecture's to its embedding"
        raise CannotRunError(what, where=where, remedy="use a backend of kind hf for it")


def longest_alike(resolved: Mapping[str, Any], asked: Collection[str]) -> int | None:
    """Return up to how many tokens mlx_lm's model reads a text as the base does; None: of any length.

    Layers with a sliding window read all of a text that fits into it. Where mlx_lm has no such layers for an
    architecture, or none without a list of them that the base has not, a longer text would be another model's.

    Args:
        resolved: the settings, with transformers' defaults.
        asked: the names that mlx_lm's model asks for.
    """
    size, kinds = resolved.get("sliding_window"), resolved.get("layer_types")
    if not isinstance(size, int) or (kinds and "sliding_attention" not in kinds):
        return None
    has_windows = "sliding_window" in asked and ("layer_types" not in asked or bool(kinds))
    return None if has_windows or "text_config" in asked else size  # of a model of parts, the text's has them


def _rope(resolved: Mapping[str, Any]) -> dict[str, Any]:
    rope = resolved.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return {}
    if isinstance(whole := rope.get("full_attention"), Mapping):  # one for each kind of layer
        local = rope.get("sliding_attention") or {}
        return _flat(whole) | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})
    return _flat(rope)


def _flat(rope: Mapping[str, Any]) -> dict[str, Any]:
    found = {k: rope[k] for k in ("rope_theta", "partial_rotary_factor") if k in rope}
    if rope.get("rope_type", "default") != "default":
        found["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    return found


def _windows(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return after how many layers one reads everything, where transformers lists the layers instead."""
    kinds = resolved.get("layer_types") or []
    if "sliding_attention" not in kinds or "full_attention" not in kinds:
        return {}
    return {"sliding_window_pattern": kinds.index("full_attention") + 1}
