"""What `options` of a spec each built-in kind takes, known without importing what loads it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dlm_sway.backends.api_options import ApiOptions
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.backends.vllm_options import VllmOptions


class NoOptions(BaseModel):
    """The `options` of a spec of a kind that has none: what it can be told, the spec itself says."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TwoModelOptions(BaseModel):
    """The `options` of a spec of kind `two_model`. Frozen; unknown keys are refused.

    Attributes:
        finetuned: directory or Hub id of the fine-tune.
        compare: by tokens, or, where the two have not the same ones, by bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finetuned: str = Field(min_length=1)
    compare: Literal["tokens", "bytes"] = "tokens"


_OPTIONS: Final[dict[str, type[BaseModel]]] = {
    "api": ApiOptions,
    "dummy": DummyOptions,
    "hf": NoOptions,
    "mlx": NoOptions,
    "two_model": TwoModelOptions,
    "vllm": VllmOptions,
}


def options_model(kind: str) -> type[BaseModel] | None:
    """Return what validates the options of a kind; None for a kind that is not sway's own, or opens any class."""
    return _OPTIONS.get(kind)
