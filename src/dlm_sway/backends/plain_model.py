"""A model without PEFT that answers as a PeftModel would, so that one overlay and one engine serve both."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any


class PlainModel:
    """A transformers model, with the few names that sway asks of a PeftModel.

    Attributes:
        active_peft_config: says that there is nothing of PEFT's in it.
    """

    active_peft_config = SimpleNamespace(
        is_prompt_learning=False, peft_type=None, num_virtual_tokens=None, alora_invocation_tokens=None
    )
    _adapters_disabled = False

    def __init__(self, model: Any) -> None:
        """Stand for `model`."""
        self._model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self._model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return what the model has under this name."""
        return getattr(self._model, name)

    def get_base_model(self) -> Any:
        """Return the model."""
        return self._model

    def disable_adapter(self) -> AbstractContextManager[None]:
        """Change nothing: the overlay puts the base's tensors in place."""
        return nullcontext()
