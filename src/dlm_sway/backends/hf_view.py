"""One view of a Hugging Face model: the scoring contract, one prompt or one batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.core.errors import ViewError
from dlm_sway.core.scoring import RollingLogprob, TokenDist

_BATCH_TOKENS = 2048


class HFView:
    """The model as it is inside one context; refuses to answer afterwards."""

    def __init__(self, name: str, model: Any, encoder: TextEncoder, is_open: Callable[[HFView], bool]) -> None:
        """Look at `model`, which computes this view for as long as `is_open(self)`."""
        self._name = name
        self._model = model
        self._encoder = encoder
        self._is_open = is_open

    @property
    def id(self) -> str:
        """Name of the base and of the view."""
        return self._name

    def close(self) -> None:
        """Do nothing: the context that opened the view closes it."""

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-prob in nats of the completion's tokens given the prompt."""
        pair = self._encoder.encode_pair(prompt, completion)
        logprobs = self._token_logprobs(pair.ids)
        return float(logprobs[pair.start - 1 :].astype(np.float64).sum())

    def rolling_logprob(self, text: str) -> RollingLogprob:
        """Return the log-prob of every token given those before it; long texts with a stride."""
        ids = self._encoder.encode(text)
        logprobs = self._token_logprobs(ids)
        return RollingLogprob(ids, logprobs, len(ids), float(logprobs.astype(np.float64).sum()))

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the `top_k` most probable next tokens after `prompt`."""
        return self.next_token_dist_batch([prompt], top_k=top_k)[0]

    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order, computed in length-sorted batches."""
        rows = [self._encoder.encode_prompt(p)[-self._encoder.max_length :] for p in prompts]
        out: dict[int, TokenDist] = {}
        for batch in _batches(rows):
            logits = self._last_logits([rows[i] for i in batch])  # [n, vocab]
            out |= {i: _top(row, top_k) for i, row in zip(batch, logits, strict=True)}
        return [out[i] for i in range(len(rows))]

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone; greedy at temperature 0, else sampled with `seed`."""
        self._require_open()
        model = self._model
        ids = torch.from_numpy(self._encoder.encode_prompt(prompt))[None].to(model.device)  # [1, n]
        options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            options = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        pad = self._encoder.tokenizer.pad_token_id
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                pad_token_id=self._encoder.prefix_id if pad is None else pad,
                **options,
            )
        return self._encoder.decode(out[0, ids.shape[1] :].cpu().numpy())

    def _require_open(self) -> None:
        if not self._is_open(self):
            raise ViewError("this view is closed", where=self._name, remedy="open it again and use it in its block")

    @torch.inference_mode()
    def _token_logprobs(self, ids: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return float32[N-1]; windows overlap by half, and each token is scored once, with the most context."""
        self._require_open()
        window = self._encoder.max_length
        out = np.empty(max(len(ids) - 1, 0), dtype=np.float32)
        done = 0
        while done < out.size:
            begin = 0 if done == 0 else done + 1 - window // 2
            end = min(begin + window, len(ids))
            row = torch.from_numpy(ids[begin:end])[None].to(self._model.device)  # [1, n]
            logits = self._model(input_ids=row, use_cache=False).logits[0, done - begin : -1].float()  # [n - 1, vocab]
            target = row[0, done - begin + 1 :, None]
            picked = logits.gather(1, target)[:, 0] - torch.logsumexp(logits, dim=1)
            out[done : end - 1] = picked.cpu().numpy()
            done = end - 1
        return out

    @torch.inference_mode()
    def _last_logits(self, rows: list[np.ndarray[Any, np.dtype[np.int64]]]) -> Tensor:
        """Return float32[n, vocab]: what follows each row. Right padding is exact under a causal mask."""
        self._require_open()
        width = max(len(r) for r in rows)
        ids = np.full((len(rows), width), self._encoder.prefix_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        device = self._model.device
        # Only the distinct last positions need a row of the vocabulary.
        last, where = np.unique([len(r) - 1 for r in rows], return_inverse=True)
        logits = self._model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            use_cache=False,
            logits_to_keep=torch.from_numpy(last).to(device),
        ).logits  # [n, len(last), vocab]
        picked: Tensor = logits[torch.arange(len(rows), device=device), torch.from_numpy(where).to(device)]
        return picked.float()


def _batches(rows: list[np.ndarray[Any, np.dtype[np.int64]]]) -> list[list[int]]:
    """Group row indices of like length so that a padded batch holds at most `_BATCH_TOKENS` tokens."""
    out: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if out and (len(out[-1]) + 1) * len(rows[i]) <= _BATCH_TOKENS:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def _top(logits: Tensor, top_k: int) -> TokenDist:
    """Return the top of one distribution from its logits [vocab]; the tail is measured, not assumed."""
    logp = torch.log_softmax(logits.double(), dim=0)
    k = min(top_k, logp.numel())
    values, ids = torch.topk(logp, k)
    tail = None if k == logp.numel() else _log_tail(logp, ids)
    return TokenDist(ids.cpu().numpy(), values.float().cpu().numpy(), logp.numel(), tail)


def _log_tail(logp: Tensor, ids: Tensor) -> float:
    rest = logp.index_fill(0, ids, -torch.inf)
    tail = float(torch.logsumexp(rest, dim=0))
    smallest = float(np.log(np.finfo(np.float32).tiny))
    return tail if tail > smallest else 0.0
