"""Loads the tokenizer that an adapter was trained with: what trainers save beside it, over the base's.

TRL, Axolotl, Unsloth and LLaMA-Factory write tokenizer and chat template into the adapter's folder. A base without a
template of its own is trained with that one, and read without it as text that training never showed.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.backends.tokenizer import first_line, load_tokenizer
from dlm_sway.core.errors import AdapterError
from dlm_sway.core.model import ModelSpec

_SETTINGS: Final = "tokenizer_config.json"
_TEMPLATE: Final = "chat_template.jinja"
_VOCABULARY: Final = "tokenizer.json"

FILES: Final = frozenset({_SETTINGS, _TEMPLATE, _VOCABULARY, "added_tokens.json", "special_tokens_map.json"})
"""What of an adapter's folder the tokenizer follows from."""

_log: Final = logging.getLogger(__name__)


def load_trained_tokenizer(spec: ModelSpec, adapter: Path) -> Any:
    """Return the tokenizer saved in `adapter` if the base can embed its ids, else the base's with its chat template.

    Without a template there the base's stays. Code that comes with the adapter is never run.

    Raises:
        BadInputError: the base has no usable tokenizer.
        AdapterError: the adapter's chat template cannot be read.
    """
    base = load_tokenizer(spec)
    saved = _saved(adapter)
    template = _template_in(adapter) if saved is None else saved.chat_template
    if saved is not None and _fits(saved, base, spec):
        # Trainers write the length that they cut texts to: nothing of the model.
        saved.model_max_length = base.model_max_length
        saved.chat_template = template or getattr(base, "chat_template", None)
        return saved
    if template:
        base.chat_template = template
    return base


def _saved(adapter: Path) -> Any | None:
    """Return the tokenizer in a folder, or None where none lies there that gives ids and character offsets."""
    if not (adapter / _VOCABULARY).is_file():  # transformers would make up an empty vocabulary
        return None
    from transformers import AutoTokenizer

    try:
        saved = AutoTokenizer.from_pretrained(str(adapter), trust_remote_code=False)
    except Exception as e:  # noqa: BLE001 (the library raises what it likes, `Exception` itself among it)
        _log.warning("the tokenizer saved with the adapter is not used: %s: %s", adapter, first_line(e))
        return None
    return saved if getattr(saved, "is_fast", False) else None


def _fits(saved: Any, base: Any, spec: ModelSpec) -> bool:
    """Return whether the base has a row for each id: it does for its own, and as many as its config says."""
    ids = saved.get_vocab()
    return bool(ids == base.get_vocab() or max(ids.values(), default=0) < _rows(spec))


def _rows(spec: ModelSpec) -> int:
    """Return how many ids the base embeds, 0 where its config does not say."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(spec.base, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
    return int(getattr(config.get_text_config(), "vocab_size", None) or 0)


def _template_in(adapter: Path) -> str | dict[str, str] | None:
    """Return the chat template that a folder holds, from its file or the tokenizer's settings."""
    file, settings = adapter / _TEMPLATE, adapter / _SETTINGS
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise AdapterError(
                f"the chat template cannot be read: {first_line(e)}", where=file, remedy="save the tokenizer again"
            ) from None
    found = read_json_object(settings).get("chat_template") if settings.is_file() else None
    if isinstance(found, list):  # several by name, as transformers stores them
        found = {t["name"]: t["template"] for t in found if isinstance(t, dict) and {"name", "template"} <= t.keys()}
    return found if isinstance(found, (str, dict)) else None
