"""What a `vllm` backend is told."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from dlm_sway.backends.options import read_options
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec

_WHERE: Final = "options of a vllm backend"
_OWN: Final = frozenset({"dtype", "enable_lora", "max_logprobs", "max_lora_rank", "max_model_len", "model", "revision"})


class VllmOptions(BaseModel):
    """The `options` of a spec of kind `vllm`. Frozen; unknown keys are refused.

    Attributes:
        top_k: most probable tokens asked for at each position.
        max_length: context window in tokens; longer ones take more memory for the same texts.
        engine: further arguments of `vllm.LLM`, such as `gpu_memory_utilization` or `tensor_parallel_size`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int = Field(default=64, ge=1)
    max_length: int = Field(default=4096, ge=2)
    engine: dict[str, Any] = Field(default_factory=dict)


def options_of(spec: ModelSpec) -> VllmOptions:
    """Return the options of a spec.

    Raises:
        BadInputError: an option is unknown or wrong, or the spec asks for what this kind does not do.
    """
    if spec.adapter is None:
        raise BadInputError("no adapter is named", where=_WHERE, remedy="give `adapter: DIRECTORY`")
    if spec.quantization != "none":
        raise BadInputError(
            f"quantization is {spec.quantization}, by bitsandbytes",
            where=_WHERE,
            remedy="name vLLM's own in options.engine",
        )
    options = read_options(VllmOptions, spec.options, where=_WHERE)
    if taken := sorted(_OWN & set(options.engine)):
        raise BadInputError(
            f"engine sets {', '.join(taken)}", where=_WHERE, remedy="the spec and the other options say that"
        )
    return options
