"""Stops a causal language model before its vocabulary, and applies the vocabulary to chosen positions only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from dlm_sway.core.errors import CannotRunError
from dlm_sway.engine.widths import rows_for

BLOCK_BYTES = 30 * 2**20  # one [V, p, K] block of logits; glibc maps what is over 32 MiB anew each time
_AGREE = 1e-2  # bf16 logits of about 20 carry this much rounding; a missed soft cap or scale is off by whole units


def tall(hidden: Tensor, n: int) -> Tensor:
    """Return hidden states [V, p, d] with zeros behind them where p is less than `n`."""
    return F.pad(hidden, (0, 0, 0, n - hidden.shape[1])) if hidden.shape[1] < n else hidden


class _Reached(Exception):  # noqa: N818 (a signal, no error)
    """Ends a forward where the projection would begin."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden
        super().__init__("the projection was reached")


class Head:
    """Separates a model into what runs over tokens and the projection to logits.

    A model that does to its logits what is not known here is not separated: then `hidden` holds the logits.
    """

    def __init__(self, model: Any) -> None:
        """Find the projection of `model` and check on four tokens that both halves give the model's own logits."""
        self.model = model
        self.project = model.get_output_embeddings()
        config = model.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)
        self._divide = getattr(config, "logits_scaling", None)
        self._scale = getattr(config, "logit_scale", None)
        self.is_separate = self.project is not None and self._halves_agree()

    @torch.inference_mode()
    def hidden(self, ids: Tensor, **cached: Any) -> Tensor:
        """Return what the projection would read, [rows, L, d]; ids are int64[rows, L], right-padded.

        Where the rows go on from a cache, `cached` holds the model's other inputs.

        No mask is needed: under causal attention a position never sees the padding behind it. Prompt learning puts
        virtual tokens before the row; they are cut off.
        """
        if not self.is_separate:
            whole: Tensor = self.model(input_ids=ids, **({"use_cache": False} | cached)).logits
            return whole[:, -ids.shape[1] :]
        before = self._before_projection(ids, **cached)
        if before is None:
            raise CannotRunError(f"{type(self.model).__name__} skipped its projection", remedy="please report it")
        return before[:, -ids.shape[1] :]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., K] in fp32 of hidden states [..., d]."""
        if not self.is_separate:
            return hidden.float()
        return self._projected(hidden)

    def blocks(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield logits [V, p, K] of hidden states [V, P, d], a block of positions at a time.

        Nobody on the way keeps a block while the next is computed. PyTorch's decorator for generators would, so the
        caller brings its own `inference_mode`.
        """
        n_views, n_positions, width = hidden.shape
        vocabulary = self._vocabulary if self.is_separate else width
        least = rows_for(n_views, 1)
        step = max(least, BLOCK_BYTES // (n_views * vocabulary * 4))
        for begin in range(0, n_positions, step):
            part = hidden[:, begin : begin + step]  # [V, p, d]
            z = self.logits(tall(part, least).reshape(-1, width))  # [V * p, K]
            yield slice(begin, begin + step), z.reshape(n_views, -1, z.shape[-1])[:, : part.shape[1]]
            del z

    @property
    def _vocabulary(self) -> int:
        weight = getattr(self.project, "weight", None)
        return 2**17 if weight is None else int(weight.shape[0])

    def _before_projection(self, ids: Tensor, **cached: Any) -> Tensor | None:
        def stop(_: Any, args: tuple[Tensor, ...]) -> None:
            raise _Reached(args[0])

        handle = self.project.register_forward_pre_hook(stop)
        try:
            self.model(input_ids=ids, **({"use_cache": False} | cached))
        except _Reached as reached:
            return reached.hidden
        finally:
            handle.remove()
        return None

    def _projected(self, hidden: Tensor) -> Tensor:
        z: Tensor = self.project(hidden).float()
        if self._scale is not None:
            z = z * self._scale
        if self._divide is not None:
            z = z / self._divide
        if self._cap is not None:
            z = torch.tanh(z / self._cap) * self._cap
        return z

    @torch.inference_mode()
    def _halves_agree(self) -> bool:
        ids = torch.arange(1, 5, device=self.model.device)[None]
        whole = self.model(input_ids=ids, use_cache=False).logits.float()
        before = self._before_projection(ids)
        if before is None:
            return False
        parts = self._projected(before)
        if parts.shape != whole.shape:
            return False
        both_nan = torch.isnan(whole) & torch.isnan(parts)
        return bool(((whole - parts).abs().le(_AGREE * (1 + whole.abs())) | both_nan | (whole == parts)).all())
