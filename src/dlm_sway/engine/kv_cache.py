"""Forward passes that continue from a KV cache, with rows of different lengths padded on the left.

Left padding lets rows of different lengths grow side by side: their ends are aligned, and the distances inside a row,
which rotary embeddings and sliding windows read, are those of the row alone. Position ids count a row's own tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_AGREE = {torch.float32: 1e-3}  # of the spread of the logits; a wrong position or mask is off by far more
_AGREE_ROUGHLY = 0.05  # in 16 bits, where batches of two shapes differ by about a hundredth
_STRETCHED = {"dynamic", "longrope"}  # frequencies follow the length of the batch, so a prefix is not what it was
_NEEDED = {"attention_mask", "past_key_values", "use_cache"}
_KNOWN_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer"}  # rows can be picked from these, and nothing is summed up


class Rows:
    """Rows of a batch that grow on the right, with the cache of what was read.

    Attributes:
        cache: keys and values of everything read.
        mask: int64[n, L], 1 at tokens and 0 at padding, over all that was read.
        lengths: int64[n], tokens of each row, padding not counted.
    """

    def __init__(self, model: Any, *, max_length: int | None = None) -> None:
        """Start with nothing read; rows longer than `max_length` are kept in step with the others but not right."""
        from transformers import DynamicCache

        self.cache = DynamicCache(config=model.config)
        self.mask: Tensor | None = None
        self.lengths: Tensor | None = None
        self._model = model
        self._last_position = None if max_length is None else max_length - 1
        self._takes = set(inspect.signature(model.forward).parameters)

    def read(self, mask: Tensor) -> dict[str, Any]:
        """Return the model's inputs beside the next tokens of every row, and count these as read.

        Args:
            mask: int64[n, S], 0 at padding: left of all tokens, or right of the last ones.
        """
        seen = torch.zeros_like(mask[:, 0]) if self.lengths is None else self.lengths
        positions = (seen[:, None] + mask.cumsum(-1) - 1).clamp(min=0, max=self._last_position)
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], dim=1)
        self.lengths = seen + mask.sum(-1)
        inputs = {"attention_mask": self.mask, "past_key_values": self.cache, "use_cache": True}
        # Models with ALiBi take no positions and read the mask instead.
        return inputs | ({"position_ids": positions} if "position_ids" in self._takes else {})

    @torch.inference_mode()
    def next_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Read the next tokens of every row, no padding on the right, and return what follows, [n, K]."""
        last = {"logits_to_keep": 1} if "logits_to_keep" in self._takes else {}
        logits: Tensor = self._model(input_ids=ids, **self.read(mask), **last).logits[:, -1]
        return logits

    def select(self, rows: Tensor) -> Rows:
        """Return the rows at `rows` int64[m], any number of times each; self stays as it is."""
        picked = self._copied(rows)
        picked.cache.batch_select_indices(rows)
        return picked

    def lend(self, rows: Tensor) -> Rows:
        """Return the rows at `rows` int64[m] for one pass: their cache is copied a layer at a time and not kept."""
        lent = self._copied(rows)
        for layer in lent.cache.layers:
            layer.update = _Once(copy(layer), rows)
        return lent

    def _copied(self, rows: Tensor) -> Rows:
        out = copy(self)
        out.cache = copy(self.cache)
        # A layer replaces its tensors on update and never writes into them, so copies may share them.
        out.cache.layers = [copy(layer) for layer in self.cache.layers]
        if self.mask is not None and self.lengths is not None:
            out.mask, out.lengths = self.mask[rows], self.lengths[rows]
        return out


class _Once:
    """Stands in for a cache layer's `update`: returns all keys and values, and keeps nothing."""

    def __init__(self, layer: Any, rows: Tensor) -> None:
        self._layer, self._rows = layer, rows

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        layer = copy(self._layer)
        layer.batch_select_indices(self._rows)
        return layer.update(*args, **kwargs)


def left_padded(
    rows: Sequence[npt.NDArray[np.int64]], device: torch.device, *, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64[n, L] each, with padding on the left; L is `width`, or that of the longest row."""
    width = width or max(len(r) for r in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def continues(model: Any, *, whole: Any = None) -> bool:
    """Return whether `model` computes the same from a padded cache as from whole rows.

    By what it is (a plain attention cache, rotary frequencies that do not follow the batch), and by a trial: two rows
    of different lengths, three tokens on top of their cache, against each row alone.

    Args:
        model: a transformers model.
        whole: what reads the rows alone, such as PEFT's wrapper around `model`; by default `model` itself.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or not set(inspect.signature(model.forward).parameters) >= _NEEDED:
        return False
    config = model.config.get_text_config()
    if _stretched(config) or "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    try:
        return _trial(model, model if whole is None else whole)
    except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError):
        return False  # another kind of cache: its own code refuses ours


@torch.inference_mode()
def _trial(model: Any, whole: Any) -> bool:
    device, vocab_size = model.device, model.config.get_text_config().vocab_size
    texts = [np.arange(3, 3 + n, dtype=np.int64) % vocab_size for n in (5, 8)]
    rows = Rows(model)
    ids, mask = left_padded([t[:-3] for t in texts], device)
    model(input_ids=ids, **rows.read(mask))
    if any(type(layer).__name__ not in _KNOWN_LAYERS for layer in rows.cache.layers):
        return False
    order = torch.tensor([1, 0, 1], device=device)
    ids, mask = left_padded([texts[i][-3:] for i in order], device)
    alone = [whole(input_ids=torch.from_numpy(t)[None].to(device), use_cache=False).logits[0, -3:] for t in texts]
    expected = torch.stack([alone[i] for i in order]).float()  # [3, 3, K]
    room = _AGREE.get(model.dtype, _AGREE_ROUGHLY) * expected.std(-1)
    pairs = [model(input_ids=ids, **some.read(mask)).logits.float() for some in (rows.lend(order), rows.select(order))]
    return all(bool(((z - expected).square().mean(-1).sqrt() <= room).all()) for z in pairs)


def _stretched(config: Any) -> bool:
    found: list[Any] = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    while found:
        entry = found.pop()
        if isinstance(entry, dict):
            if (entry.get("rope_type") or entry.get("type")) in _STRETCHED:
                return True
            found += entry.values()  # some architectures hold one entry a layer type
    return False
