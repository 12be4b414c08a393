"""One view of an MLX model: the scoring contract, one prompt or one batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from dlm_sway.backends.array_dist import log_softmax, pick, top_of
from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.backends.mlx_layers import Net
from dlm_sway.backends.text_view import F32, Ids, PaddedView
from dlm_sway.core.determinism import stream
from dlm_sway.core.scoring import TokenDist


class MlxView(PaddedView):
    """The model as it is inside one context; refuses to answer afterwards."""

    def __init__(self, name: str, net: Net, encoder: TextEncoder, is_open: Callable[[Any], bool]) -> None:
        """Look at `net`, which computes this view for as long as `is_open(self)`."""
        super().__init__(name, encoder, is_open)
        self._net, self._encoder = net, encoder

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone; greedy at temperature 0, else sampled with `seed`.

        Raises:
            BadInputError: the prompt is longer than the context window.
        """
        self._require_open()
        from mlx_lm.models.cache import make_prompt_cache

        row, rng = self._fitting(prompt), stream(seed, "mlx", "generate")
        written: list[int] = []
        with mx.stream(self._net.device):
            cache = make_prompt_cache(self._net.model)
            read = row
            for _ in range(min(max_new_tokens, self._encoder.max_length - len(row))):
                logits = self._net.model(mx.array(read[None].astype(np.int32)), cache=cache)[0, -1]  # [K]
                token = pick(log_softmax(_numpy(logits)), rng, temperature=temperature, top_p=top_p)
                if token in self._encoder.stop_ids:
                    break
                written.append(token)
                read = np.array([token])
        return self._encoder.decode(np.array(written, dtype=np.int64))

    def _scored(self, row: Ids, targets: Ids) -> F32:
        places = np.arange(len(row) - len(targets), len(row))
        with mx.stream(self._net.device):
            logits = self._logits(row[None], np.zeros_like(places), places)  # [n_scored, K]
            target = mx.array(targets.astype(np.int32))[:, None]
            picked = mx.take_along_axis(logits, target, axis=1)[:, 0] - mx.logsumexp(logits, axis=1)
            return _numpy(picked)

    def _tops(self, rows: list[Ids], top_k: int) -> list[TokenDist]:
        return [top_of(log_softmax(row), top_k) for row in self._last_logits(rows)]  # a row [K] each

    def _last_logits(self, rows: list[Ids]) -> F32:
        """Return float32[n, K]: what follows each row. Right padding is exact under a causal mask."""
        ids = np.full((len(rows), max(len(r) for r in rows)), self._encoder.prefix_id, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        with mx.stream(self._net.device):
            return _numpy(self._logits(ids, np.arange(len(rows)), np.array([len(r) - 1 for r in rows])))

    def _logits(self, ids: Ids, row: Ids, place: Ids) -> Any:
        tokens, rows, places = (mx.array(x.astype(np.int32)) for x in (ids, row, place))
        return self._net.logits(self._net.hidden(tokens, rows, places))


def _numpy(x: Any) -> F32:
    return np.array(x.astype(mx.float32), dtype=np.float32)
