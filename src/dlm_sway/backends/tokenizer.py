"""Loads the tokenizer of a base."""

from __future__ import annotations

from typing import Any

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec

WHERE = (
    "name a model directory with safetensors, or a Hub id that is cached or reachable: as --base, in a suite as "
    "models.base.base"
)


def load_tokenizer(spec: ModelSpec) -> Any:
    """Return the tokenizer of `spec.base`.

    Raises:
        BadInputError: there is none, or it cannot be used.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            spec.base, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadInputError(f"no usable tokenizer: {first_line(e)}", where=spec.base, remedy=WHERE) from e


def first_line(e: BaseException) -> str:
    """Return what an error of a library says, cut short."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(e).__name__
