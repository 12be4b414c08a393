"""`adapter_config.json`: the few settings that decide what an adapter's tensors mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dlm_sway.adapters.fields import Fields
from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.adapters.other_formats import is_whole_model, way_with_mlx, way_with_whole_model
from dlm_sway.core.errors import AdapterError

CONFIG_NAME: Final = "adapter_config.json"
# Initialisations that move a part of W into the factors and leave the rest as the base.
_HOLDS_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
# What makes a LoRA layer compute, or train, by another formula; DoRA and rsLoRA have settings of their own here.
_VARIANTS: Final = (
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "use_bdlora", "use_qalora"),
    "velora_config",
)
_REPLICATED: Final = (
    "write it as a whole model, each layer with weights of its own, which PEFT's merge does not give them; then "
    "compare that with the base: kind two_model, and `compare: bytes` in its options"
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What PEFT was told when the adapter was made; names and defaults are those of `peft.LoraConfig`.

    Unknown keys of the file are ignored: PEFT adds some with every release. `r`, `lora_alpha` and the patterns
    are read for LoRA alone, because other methods give the same keys other meanings (AdaLoRA's `rank_pattern`
    holds lists of booleans, OFT's `r` may be 0).

    Attributes:
        peft_type: upper case, such as `LORA`; None when the file does not say.
        target_modules: names or suffixes of names; or one regular expression; or `all-linear`; None when absent.
        layers_to_transform: layer indices; None means all of them.
        modules_to_save: names of modules that were trained whole.
        replicates_layers: `layer_replication` is set, so the loaded model has layers that the base lacks.
        variant: the first setting that makes it another kind of LoRA than plain, rsLoRA or DoRA; None for those.
    """

    peft_type: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    target_modules: tuple[str, ...] | str | None = None
    exclude_modules: tuple[str, ...] | str | None = None
    target_parameters: tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str = True
    ensure_weight_tying: bool = False
    replicates_layers: bool = False
    variant: str | None = None

    @property
    def is_lora(self) -> bool:
        """Whether the adapter is LoRA (rsLoRA and DoRA included)."""
        return self.peft_type == "LORA"

    def base_revision(self, base: str | None) -> str | None:
        """Return the revision of the base that it was trained on, where `base` is that base; None is the recorded one.

        A base that is named otherwise, such as a copy in a folder, has revisions of its own.
        """
        return self.revision if base in (None, self.base_model_name_or_path) else None

    def rank_of(self, module: str) -> int:
        """Return the rank that the config gives `module`: the first matching pattern's, else `r`."""
        key = _pattern_key(self.rank_pattern, module)
        return self.r if key is None else self.rank_pattern[key]

    def alpha_of(self, module: str) -> float:
        """Return the alpha that the config gives `module`: the first matching pattern's, else `lora_alpha`."""
        key = _pattern_key(self.alpha_pattern, module)
        return self.lora_alpha if key is None else self.alpha_pattern[key]

    def scale_of(self, module: str) -> float:
        """Return what multiplies B A: alpha / r, or alpha / sqrt(r) under rsLoRA (Kalajdzievski 2023)."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)


def holds_base(init: object) -> bool:
    """Return whether LoRA factors that began as `init_lora_weights` hold a part of the base weight."""
    return isinstance(init, str) and init.lower().startswith(_HOLDS_BASE)


def require_layers_of_base(config: AdapterConfig, *, where: Path) -> None:
    """Return if the adapter is one of the base's own layers: factors are changes of those, and of no others.

    Raises:
        AdapterError: PEFT would build a stack of other layers first, and switching the adapter off would leave it.
    """
    if config.replicates_layers:
        raise AdapterError("layer_replication builds layers that the base lacks", where=where, remedy=_REPLICATED)


def load_config(adapter_dir: Path) -> AdapterConfig:
    """Return the config of a PEFT adapter directory.

    A missing or unknown `peft_type` is no error here; the checks report it.

    Raises:
        AdapterError: the path is missing, no directory, no adapter, mlx_lm's and not PEFT's, or its config is not a
            UTF-8 JSON object with values of the types that PEFT writes.
    """
    path = adapter_dir / CONFIG_NAME
    try:
        _check_is_adapter(adapter_dir, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AdapterError(f"cannot be read ({reason})", where=adapter_dir, remedy="check the path") from None
    return _from_fields(Fields(read_json_object(path), where=path))


def _check_is_adapter(adapter_dir: Path, config: Path) -> None:
    if not adapter_dir.exists():
        raise AdapterError("no such directory", where=adapter_dir, remedy="check the path of the adapter")
    if not adapter_dir.is_dir():
        raise AdapterError("not a directory", where=adapter_dir, remedy="name the directory that PEFT saved")
    if not config.is_file():
        raise AdapterError(f"holds no {CONFIG_NAME}, so it is no PEFT adapter", where=adapter_dir, remedy=_hint(config))
    if (way := way_with_mlx(adapter_dir)) is not None:
        raise AdapterError("is an adapter of mlx_lm, not of PEFT", where=adapter_dir, remedy=way)


def _hint(path: Path) -> str:
    nested = sorted(found.parent.name for found in path.parent.glob(f"*/{CONFIG_NAME}"))
    if nested:
        return f"name one of the adapters inside it: {', '.join(nested[:3])}"
    if is_whole_model(path.parent):
        return way_with_whole_model(path.parent)
    if (path.parent / "config.json").is_file():
        return "this looks like a whole model; name the directory that `model.save_pretrained` of a PeftModel wrote"
    return "name the directory that `model.save_pretrained` of a PeftModel wrote"


def _from_fields(fields: Fields) -> AdapterConfig:
    peft_type = fields.text("peft_type")
    peft_type = peft_type.upper() if peft_type else None
    lora = fields if peft_type == "LORA" else Fields({}, where=fields.where)
    return AdapterConfig(
        peft_type=peft_type,
        base_model_name_or_path=fields.text("base_model_name_or_path") or None,
        revision=fields.text("revision") or None,
        r=lora.positive_integer("r", default=8),
        lora_alpha=lora.number("lora_alpha", default=8),
        use_rslora=lora.flag("use_rslora"),
        use_dora=lora.flag("use_dora"),
        rank_pattern=lora.integers_by_pattern("rank_pattern"),
        alpha_pattern=lora.numbers_by_pattern("alpha_pattern"),
        target_modules=fields.names_or_pattern("target_modules"),
        exclude_modules=fields.names_or_pattern("exclude_modules"),
        target_parameters=lora.names("target_parameters"),
        layers_to_transform=fields.integers("layers_to_transform"),
        layers_pattern=fields.patterns("layers_pattern"),
        modules_to_save=fields.names("modules_to_save"),
        bias=fields.text("bias") or "none",
        fan_in_fan_out=fields.flag("fan_in_fan_out"),
        init_lora_weights=lora.flag_or_text("init_lora_weights", default=True),
        ensure_weight_tying=lora.flag("ensure_weight_tying"),
        replicates_layers=lora.is_set("layer_replication"),
        variant=next((key for key in _VARIANTS if lora.is_set(key)), None),
    )


def _pattern_key(patterns: Mapping[str, object], module: str) -> str | None:
    # PEFT's `get_pattern_key`: a key is a regular expression for the end of the name, at a dot; the first one wins.
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
