"""What `options` of a spec each built-in kind takes, known without importing what loads it."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from dlm_sway.backends.api_options import ApiOptions
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.backends.options import NoOptions
from dlm_sway.backends.two_model_options import TwoModelOptions
from dlm_sway.backends.vllm_options import VllmOptions

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
