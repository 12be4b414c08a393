"""What a `two_model` backend is told."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dlm_sway.backends.options import read_options
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec

_REMEDY: Final = "set finetuned to the directory or Hub id of the fine-tune, and compare, if at all, to tokens or bytes"


class TwoModelOptions(BaseModel):
    """The `options` of a spec of kind `two_model`. Frozen; unknown keys are refused.

    Attributes:
        finetuned: directory or Hub id of the fine-tune.
        compare: by tokens, or, where the two have not the same ones, by bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finetuned: str = Field(min_length=1)
    compare: Literal["tokens", "bytes"] = "tokens"


def options_of(spec: ModelSpec) -> TwoModelOptions:
    """Return the options of a spec.

    Raises:
        BadInputError: an option is unknown or wrong, or the spec asks for what this kind does not do.
    """
    options = read_options(TwoModelOptions, spec.options, where="options of two_model", remedy=_REMEDY)
    if spec.adapter is not None:
        raise BadInputError("two whole models take no adapter", where=spec.adapter, remedy="use kind hf for it")
    if spec.quantization != "none":
        raise BadInputError("two whole models are not quantised on load", remedy="drop the quantization option")
    return options
