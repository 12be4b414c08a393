"""Loads a base and its adapter with transformers and PEFT: safetensors only, offline when cached, no pickle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from dlm_sway.adapters.config import holds_base, load_config, require_layers_of_base
from dlm_sway.adapters.tensors import TensorFile
from dlm_sway.backends.hf_find import KEPT_COPY, name_in_base
from dlm_sway.backends.quiet import quiet_peft
from dlm_sway.backends.tokenizer import WHERE, first_line
from dlm_sway.backends.trained_tokenizer import load_trained_tokenizer
from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError, MissingExtraError
from dlm_sway.core.model import ModelSpec

_WEIGHTS: Final = "adapter_model.safetensors"
_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A PEFT model in evaluation mode with its tokenizer.

    Attributes:
        model: the PeftModel.
        tokenizer: the one that the adapter was trained with.
        base_values: the base's values of parameters that the adapter replaced, by parameter name of `model`.
        device: where the model lives.
        dtype: dtype of the base weights.
        parameters: those of the base before the adapter was put on, by name; one that is tied stands under each name.
    """

    model: Any
    tokenizer: Any
    base_values: dict[str, Tensor]
    device: torch.device
    dtype: torch.dtype
    parameters: dict[str, Tensor]


def pick_device(name: str) -> torch.device:
    """Return the device named, or for `auto` the best there is: CUDA, then MPS, then CPU.

    Raises:
        BadInputError: the device is unknown or not there.
    """
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInputError(f"unknown device {name!r}", remedy=_DEVICES) from None
    if device.type == "meta":
        raise BadInputError(f"device {name!r} computes nothing", remedy=_DEVICES)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # each build has its own way to say no
        raise BadInputError(f"device {name!r} is not available here", remedy="use --device auto or cpu") from None
    return device


_DEVICES = "use auto, cpu, mps or cuda"


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype named; `auto` is bf16 on a GPU that computes in it and fp32 everywhere else."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return _DTYPES[name]


def load(spec: ModelSpec, adapter: Path) -> Loaded:
    """Load base, tokenizer and adapter, ready to score.

    Raises:
        BadInputError: the base cannot be found or read.
        AdapterError: the adapter cannot be read, or does not fit the base.
        CannotRunError: base or adapter do not fit into memory, or bitsandbytes cannot run here.
        MissingExtraError: bitsandbytes, or a package that the base's config asks for, is not installed.
    """
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    changeable = _changeable(adapter)
    tokenizer = load_trained_tokenizer(spec, adapter)
    model, values, parameters = _put_on(load_base(spec, device, dtype), adapter, changeable, device)
    return Loaded(model, tokenizer, values, device, dtype, parameters)


def exchange(loaded: Loaded, spec: ModelSpec, adapter: Path) -> Loaded | None:
    """Return the same base under another adapter, or None where the base cannot be had back as it was loaded.

    `loaded` is not to be used again, whatever comes of it.

    Raises:
        AdapterError: the adapter cannot be read, or does not fit the base.
    """
    changeable = _changeable(adapter)
    base = _taken_off(loaded)
    if base is None:
        return None
    tokenizer = load_trained_tokenizer(spec, adapter)
    model, values, parameters = _put_on(base, adapter, changeable, loaded.device)
    return replace(loaded, model=model, tokenizer=tokenizer, base_values=values, parameters=parameters)


def _put_on(
    base: Any, adapter: Path, changeable: frozenset[str] | None, device: torch.device
) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    parameters = _parameters(base)
    kept = {n: p.detach().clone() for n, p in base.named_parameters() if changeable is None or n in changeable}
    model = _attach(base, adapter, device)
    _give_back(model, kept)
    return model, _replaced(model, kept), parameters


def _taken_off(loaded: Loaded) -> Any | None:
    """Return the base with its own values in its own parameters, or None where PEFT does not give it back."""
    from peft.utils.other import ModulesToSaveWrapper

    if not hasattr(loaded.model, "unload"):
        return None
    with torch.no_grad():
        for name, value in loaded.base_values.items():
            loaded.model.get_parameter(name).copy_(value)
    under = loaded.model.get_base_model()
    for name, module in list(under.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # PEFT would leave what was trained in its place
            under.set_submodule(name, module.original_module)
    with quiet_peft():
        base = loaded.model.unload()
    found = _parameters(base)
    same = found.keys() == loaded.parameters.keys() and all(found[n] is p for n, p in loaded.parameters.items())
    return base if same else None


def _parameters(model: Any) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False))


def load_base(spec: ModelSpec, device: torch.device, dtype: torch.dtype | Literal["auto"]) -> Any:
    """Return the model of `spec.base`; with dtype `auto` as it is stored, which leaves it mapped from its files.

    Raises:
        BadInputError: it cannot be found or read, or lacks weights.
        CannotRunError: it does not fit into memory.
        MissingExtraError: its config asks for a package that is not installed.
    """
    from transformers import AutoModelForCausalLM

    extra: dict[str, Any] = {}
    if spec.quantization != "none":
        extra["quantization_config"] = _quantization(spec, device)
        extra["device_map"] = {"": device}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            spec.base,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **extra,
        )
    except SafetensorError as e:
        raise BadInputError(
            f"the base's weights are damaged: {first_line(e)}", where=spec.base, remedy="download them again"
        ) from e
    except ImportError as e:  # what its config.json asks for: the quantiser of packed weights, flash attention
        raise MissingExtraError(
            f"the base cannot be loaded: {first_line(e).rstrip('.')}", where=spec.base, remedy=_NAMED_PACKAGE
        ) from e
    except (OSError, ValueError, KeyError) as e:
        raise BadInputError(f"the base cannot be loaded: {first_line(e)}", where=spec.base, remedy=WHERE) from e
    if missing := sorted(report["missing_keys"]):
        raise BadInputError(
            f"the base's files lack {len(missing)} of its weights, such as {missing[0]}",
            where=spec.base,
            remedy="download them again; transformers would make them up at random",
        )
    try:
        return model if extra else model.to(device)
    except torch.cuda.OutOfMemoryError as e:
        raise CannotRunError(
            f"the base does not fit into the memory of {device}",
            where=spec.base,
            remedy="use --dtype bf16, or another device",
        ) from e


_INSTALL = "pip install bitsandbytes"
_NAMED_PACKAGE: Final = "install the package that is named, or name the unquantised base as --base"


def _quantization(spec: ModelSpec, device: torch.device) -> Any:
    from transformers import BitsAndBytesConfig

    if device.type != "cuda":
        raise CannotRunError("bitsandbytes needs a CUDA device", remedy="drop the quantization option")
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("quantization needs bitsandbytes, which is not installed", remedy=_INSTALL)
    if spec.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _attach(base: Any, adapter: Path, device: torch.device) -> Any:
    from peft import PeftModel

    try:
        with quiet_peft():
            model = PeftModel.from_pretrained(base, str(adapter), is_trainable=False, torch_device=str(device))
    except torch.cuda.OutOfMemoryError as e:  # a RuntimeError too, but no fault of the adapter
        what = f"base and adapter do not fit into the memory of {device}"
        raise CannotRunError(what, where=adapter, remedy="use --dtype bf16, or another device") from e
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise AdapterError(
            f"the adapter does not fit the base: {first_line(e)}", where=adapter, remedy=f"run: sway inspect {adapter}"
        ) from e
    return model.eval()


def _changeable(adapter: Path) -> frozenset[str] | None:
    """Return the base's parameters that loading the adapter may change; None for all of them.

    An adapter file holds biases, resized embeddings and the like under the base's own names; and PiSSA and its kin take
    a part out of every adapted weight.

    Raises:
        AdapterError: the adapter is no directory that PEFT saved, its weights are a pickle, or it replicates layers.
    """
    config = load_config(adapter)
    require_layers_of_base(config, where=adapter)
    weights = adapter / _WEIGHTS
    if not weights.is_file() and (adapter / "adapter_model.bin").is_file():
        raise AdapterError(
            "holds its weights as a pickle, adapter_model.bin, which can run code",
            where=adapter,
            remedy="save it again with safe_serialization=True",
        )
    if not weights.is_file():
        raise AdapterError(f"no {_WEIGHTS}", where=adapter, remedy=f"run: sway inspect {adapter}")
    names = TensorFile(weights).infos
    return None if holds_base(config.init_lora_weights) else frozenset(map(name_in_base, names))


def _give_back(model: Any, kept: dict[str, Tensor]) -> None:
    """Put the base's values back into the copies that `modules_to_save` keeps of it.

    PEFT's own saves also hold that copy of an embedding, as it was where they were trained, and PEFT loads it. A tensor
    that is tied to a layer outside is left as it is: there the fine-tune reads it too.
    """
    from peft.utils.other import ModulesToSaveWrapper

    read = {id(p) for n, p in _parameters(model).items() if KEPT_COPY not in n}
    for name, module in model.named_modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        for part, p in module.original_module.named_parameters():
            value = kept.get(name_in_base(f"{name}.{part}"))
            if value is not None and id(p) not in read:
                p.data.copy_(value)


def _replaced(model: Any, originals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep what did change, by its name in the model, where PEFT wraps layers and so adds `base_layer`."""
    out: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        original = originals.get(name_in_base(name))
        if original is not None and not torch.equal(original.to(p), p.detach()):
            out[name] = original
    return out
