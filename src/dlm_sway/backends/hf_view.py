"""One view of a Hugging Face model: the scoring contract, one prompt or one batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlm_sway.backends.cpu_linear import fast_linears
from dlm_sway.backends.encoding import TextEncoder, token_ids
from dlm_sway.backends.text_view import F32, Ids, PaddedView
from dlm_sway.core.scoring import TokenDist

_IN_CACHE = ("PREFIX_TUNING", "CARTRIDGE")  # PEFT's types that come as past keys and values


class HFView(PaddedView):
    """The model as it is inside one context; refuses to answer afterwards."""

    def __init__(self, name: str, model: Any, encoder: TextEncoder, is_open: Callable[[Any], bool]) -> None:
        """Look at `model`, which computes this view for as long as `is_open(self)`."""
        super().__init__(name, encoder, is_open)
        self._model = model
        self._encoder = encoder

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone; greedy at temperature 0, else sampled with `seed`.

        It ends where the context window does. Nothing else of the model's generation config than its stops is heeded.

        Raises:
            BadInputError: the prompt is longer than the context window.
        """
        self._require_open()
        model = self._model
        ids = torch.from_numpy(self._fitting(prompt))[None].to(model.device)  # [1, n]
        room = self._encoder.max_length - self._virtual_tokens() - ids.shape[1] + 1  # the last is written, never read
        if min(max_new_tokens, room) <= 0:
            return ""
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": min(max_new_tokens, room)}
        if temperature > 0:
            options |= {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        devices = [model.device] if model.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(),
            warnings.catch_warnings(),
            _plainly(model, pad=self._pad_id(), stops=self._encoder.stop_ids, **options) as config,
        ):
            # PEFT leaves positions to the model under prompt learning: right for one prompt without padding.
            warnings.filterwarnings("ignore", message="Position ids are not supported", category=UserWarning)
            torch.manual_seed(seed)
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return self._encoder.decode(out[0, ids.shape[1] :].cpu().numpy())

    @torch.inference_mode()
    def _scored(self, row: Ids, targets: Ids) -> F32:
        ids = torch.from_numpy(row)[None].to(self._model.device)  # [1, n]
        target = torch.from_numpy(targets)[:, None].to(self._model.device)  # [n_scored, 1]
        # Prompt learning puts virtual tokens before the row, so positions count from its end.
        logits = self._model(input_ids=ids, use_cache=False).logits[0, -len(target) :].float()  # [n_scored, vocab]
        picked = logits.gather(1, target)[:, 0] - torch.logsumexp(logits, dim=1)
        out: F32 = picked.cpu().numpy()
        return out

    def _tops(self, rows: list[Ids], top_k: int) -> list[TokenDist]:
        return [_top(row, top_k) for row in self._last_logits(rows)]

    @torch.inference_mode()
    def _last_logits(self, rows: list[Ids]) -> Tensor:
        """Return float32[n, vocab]: what follows each row. Right padding is exact under a causal mask."""
        self._require_open()
        width = max(len(r) for r in rows)
        ids = np.full((len(rows), width), self._encoder.prefix_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        device = self._model.device
        # Only the distinct last positions need a row of the vocabulary; virtual tokens come before the first.
        last, where = np.unique([len(r) - 1 for r in rows], return_inverse=True)
        kept = torch.from_numpy(last + self._virtual_tokens()).to(device)
        # A single short row is bound by memory, where both libraries are alike.
        with fast_linears(self._model if len(rows) > 1 else None):
            logits = self._model(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(mask).to(device),
                use_cache=False,
                logits_to_keep=kept,
            ).logits  # [n, len(kept), vocab]
        if logits.shape[1] != len(kept):  # the model took the argument among others, and kept all: [n, L, vocab]
            logits = logits[:, kept]
        picked: Tensor = logits[torch.arange(len(rows), device=device), torch.from_numpy(where).to(device)]
        return picked.float()

    def _pad_id(self) -> int:
        pad = self._encoder.tokenizer.pad_token_id
        return self._encoder.prefix_id if pad is None else int(pad)

    def _virtual_tokens(self) -> int:
        """Return how many positions prompt learning puts before a row in this view; a prefix in the cache is none."""
        config = self._model.active_peft_config
        if not config.is_prompt_learning or self._model._adapters_disabled or config.peft_type in _IN_CACHE:  # noqa: SLF001 (no public name)
            return 0
        return int(config.num_virtual_tokens)


@contextmanager
def _plainly(model: Any, *, pad: int, stops: frozenset[int], **options: Any) -> Iterator[Any]:
    """Yield a generation config with these options, these stops and the model's, and put it in place of the model's.

    What one leaves open transformers fills in from the other: a repetition penalty, and greedy would not be greedy.
    """
    from transformers import GenerationConfig

    ends = sorted({*stops, *token_ids(getattr(model.generation_config, "eos_token_id", None))})
    config = GenerationConfig(eos_token_id=ends or None, pad_token_id=pad, **options)
    holders = (model, model.get_base_model())  # PEFT hands its own to the model below
    before = [holder.generation_config for holder in holders]
    try:
        for holder in holders:
            holder.generation_config = config
        yield config
    finally:
        for holder, own in zip(holders, before, strict=True):
            holder.generation_config = own


def _top(logits: Tensor, top_k: int) -> TokenDist:
    """Return the top of one distribution from its logits [vocab]; the tail is measured, not assumed."""
    exact = logits.cpu() if logits.device.type == "mps" else logits  # which has no float64
    logp = torch.log_softmax(exact.double(), dim=0)
    k = min(top_k, logp.numel())
    values, ids = torch.topk(logp, k)
    tail = None if k == logp.numel() else _log_tail(logp, ids)
    return TokenDist(ids.cpu().numpy(), values.float().cpu().numpy(), logp.numel(), tail)


def _log_tail(logp: Tensor, ids: Tensor) -> float:
    rest = logp.index_fill(0, ids, -torch.inf)
    tail = float(torch.logsumexp(rest, dim=0))
    smallest = float(np.log(np.finfo(np.float32).tiny))
    return tail if tail > smallest else 0.0
