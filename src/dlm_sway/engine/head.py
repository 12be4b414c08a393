"""Stops a causal language model before its vocabulary, and applies the vocabulary to chosen positions only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dlm_sway.core.errors import CannotRunError

_BLOCK_BYTES = 48 * 2**20  # one [V, p, K] block of logits; a handful are alive at a time
_AGREE = 1e-2  # bf16 logits of about 20 carry this much rounding; a missed soft cap or scale is off by whole units


class Head:
    """Separates a model into what runs over tokens and the projection to logits."""

    def __init__(self, model: Any) -> None:
        """Find the projection of `model` and check on four tokens that both halves give the model's own logits.

        Raises:
            CannotRunError: they do not, so this architecture does something else to its logits.
        """
        self.model = model
        self.project = model.get_output_embeddings()
        config = model.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)
        self._divide = getattr(config, "logits_scaling", None)
        self._scale = getattr(config, "logit_scale", None)
        self._check()

    @torch.inference_mode()
    def hidden(self, ids: Tensor) -> Tensor:
        """Return what the projection would read, [rows, L, d]; ids are int64[rows, L], right-padded.

        No mask is needed: under causal attention a position never sees the padding behind it.
        """
        caught: list[Tensor] = []

        def catch(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            caught.append(args[0])
            return (args[0][:1, :1], *args[1:])  # the model's own projection then costs one row

        handle = self.project.register_forward_pre_hook(catch)
        try:
            self.model(input_ids=ids, use_cache=False)
        finally:
            handle.remove()
        return caught[0]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., K] in fp32 of hidden states [..., d]."""
        z: Tensor = self.project(hidden).float()
        if self._scale is not None:
            z = z * self._scale
        if self._divide is not None:
            z = z / self._divide
        if self._cap is not None:
            z = torch.tanh(z / self._cap) * self._cap
        return z

    @torch.inference_mode()
    def blocks(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield logits [V, p, K] of hidden states [V, P, d], a block of positions at a time."""
        n_views, n_positions, width = hidden.shape
        vocabulary = self.project.weight.shape[0] if hasattr(self.project, "weight") else 2**17
        step = max(1, _BLOCK_BYTES // (n_views * vocabulary * 4))
        for begin in range(0, n_positions, step):
            part = hidden[:, begin : begin + step].reshape(-1, width)  # [V * p, d]
            z = self.logits(part)
            yield slice(begin, begin + step), z.reshape(n_views, -1, z.shape[-1])

    def _check(self) -> None:
        ids = torch.arange(1, 5, device=self.model.device)[None]
        with torch.inference_mode():
            whole = self.model(input_ids=ids, use_cache=False).logits.float()
            parts = self.logits(self.hidden(ids))
        both_nan = torch.isnan(whole) & torch.isnan(parts)
        if not bool(((whole - parts).abs().le(_AGREE * (1 + whole.abs())) | both_nan | (whole == parts)).all()):
            raise CannotRunError(
                f"{type(self.model).__name__} changes its logits in a way sway does not know",
                remedy="please report the architecture",
            )
