"""What a model is to sway: how it is named in a spec, and the few things it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()


class ModelSpec(BaseModel):
    """Names a model and how to load it. Frozen; unknown keys are refused.

    Attributes:
        base: a local directory, or a Hub id such as `org/name`.
        kind: the registered backend that loads it.
        adapter: an adapter directory; stored expanded and absolute.
        dtype: `auto` is fp32 on CPU, and bf16 where the device computes in it.
        device: `auto` prefers CUDA, then MPS, then CPU.
        revision: a Hub revision (branch, tag or commit).
        quantization: quantise the base on load with bitsandbytes.
        trust_remote_code: run code that comes with the model; off unless the user says so.
        options: further settings that the backend itself documents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(min_length=1)
    kind: str = "hf"
    adapter: Annotated[Path | None, AfterValidator(_absolute)] = None
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    revision: str | None = None
    quantization: Literal["none", "4bit", "8bit"] = "none"
    trust_remote_code: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


@runtime_checkable
class Model(Protocol):
    """A model that can generate text."""

    @property
    def id(self) -> str:
        """A name for reports, such as `org/name` or `org/name + adapter`."""
        ...

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone; greedy at temperature 0, else sampled and reproducible."""
        ...

    def close(self) -> None:
        """Release what the model holds; calling it twice is harmless."""
        ...
