"""Loads a base and its adapter with transformers and PEFT: safetensors only, offline when cached, no pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError
from dlm_sway.core.model import ModelSpec

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A PEFT model in evaluation mode with its tokenizer.

    Attributes:
        model: the PeftModel.
        tokenizer: the base's tokenizer.
        base_biases: values of the base's biases before the adapter replaced them, by parameter name of `model`.
        device: where the model lives.
        dtype: dtype of the base weights.
    """

    model: Any
    tokenizer: Any
    base_biases: dict[str, Tensor]
    device: torch.device
    dtype: torch.dtype


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
        raise BadInputError(f"unknown device {name!r}", remedy="use auto, cpu, mps or cuda") from None
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise BadInputError(f"device {name!r} is not available here", remedy="use --device auto or cpu")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype named; `auto` is bf16 on a GPU that computes in it and fp32 everywhere else."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return _DTYPES[name]


def load(spec: ModelSpec, adapter: Path) -> Loaded:
    """Load base, tokenizer and adapter, ready to score.

    Raises:
        BadInputError: the base cannot be found or read.
        AdapterError: the adapter does not fit the base.
        CannotRunError: quantisation was asked for where bitsandbytes cannot run.
    """
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    tokenizer = _tokenizer(spec)
    base = _base(spec, device, dtype)
    biases = {f"base_model.model.{n}": p.detach().clone() for n, p in base.named_parameters() if n.endswith(".bias")}
    model = _attach(base, adapter, device)
    return Loaded(model, tokenizer, _replaced(model, biases), device, dtype)


def _tokenizer(spec: ModelSpec) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            spec.base, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError) as e:
        raise BadInputError(f"no usable tokenizer: {_first_line(e)}", where=spec.base, remedy=_WHERE) from e


def _base(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    extra: dict[str, Any] = {}
    if spec.quantization != "none":
        extra["quantization_config"] = _quantization(spec, device)
        extra["device_map"] = {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            spec.base,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            dtype=dtype,
            use_safetensors=True,
            **extra,
        )
    except (OSError, ValueError, KeyError) as e:
        raise BadInputError(f"the base cannot be loaded: {_first_line(e)}", where=spec.base, remedy=_WHERE) from e
    except Exception as e:
        if type(e).__name__ == "SafetensorError":
            raise BadInputError(
                f"the base's weights are damaged: {_first_line(e)}", where=spec.base, remedy="download them again"
            ) from e
        raise
    return model if extra else model.to(device)


_WHERE = "give --base a model directory with safetensors, or a Hub id that is cached or reachable"


def _quantization(spec: ModelSpec, device: torch.device) -> Any:
    from transformers import BitsAndBytesConfig

    if device.type != "cuda":
        raise CannotRunError("bitsandbytes needs a CUDA device", remedy="drop the quantization option")
    if spec.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _attach(base: Any, adapter: Path, device: torch.device) -> Any:
    import warnings

    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        raise AdapterError("no adapter_model.safetensors", where=adapter, remedy=f"run: sway inspect {adapter}")
    try:
        with warnings.catch_warnings():
            # Missing and unexpected keys are found, named and judged by `sway inspect`; PEFT only hints at them.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\..*")
            model = PeftModel.from_pretrained(base, str(adapter), is_trainable=False, torch_device=str(device))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise AdapterError(
            f"the adapter does not fit the base: {_first_line(e)}", where=adapter, remedy=f"run: sway inspect {adapter}"
        ) from e
    return model.eval()


def _replaced(model: Any, biases: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the biases whose values the adapter file replaced; PEFT wraps some layers, so names gain `base_layer`."""
    out: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        if not name.endswith(".bias") or "lora_" in name:
            continue
        original = biases.get(name.replace(".base_layer.", "."))
        if original is not None and not torch.equal(original.to(p), p.detach()):
            out[name] = original
    return out


def _first_line(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(e).__name__
