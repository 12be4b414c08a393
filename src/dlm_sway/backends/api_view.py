"""One view of a model behind HTTP: the scoring contract over the tops that a server gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from dlm_sway.backends.base import Reply, Scored
from dlm_sway.backends.text_view import F32, Ids, TextView, WholeTextCodec
from dlm_sway.backends.top_k import Top
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.scoring import TokenDist
from dlm_sway.core.views import View

_ROUNDING: Final = 1e-6


class Server(Protocol):
    """What a view asks."""

    @property
    def vocab_size(self) -> int: ...  # noqa: D102
    @property
    def top_k(self) -> int: ...  # noqa: D102

    def tops(self, rows: Sequence[Scored], view: View, top_k: int) -> list[list[Top]]: ...  # noqa: D102

    def write(self, prompts: Sequence[str], view: View, **options: Any) -> Sequence[Reply]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Whom a view asks, and for which view."""

    server: Any
    view: View


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    ids: Ids
    first: int
    targets: Ids


class ApiView(TextView):
    """A model behind HTTP as it is inside one context; refuses to answer afterwards."""

    def __init__(self, name: str, codec: WholeTextCodec, is_open: Callable[[Any], bool], asked: Asked) -> None:
        """Ask `asked` for as long as `is_open(self)`."""
        super().__init__(name, codec, is_open)
        self._server: Server = asked.server
        self._view = asked.view

    def next_token_dist_batch(self, prompts: list[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return one distribution a prompt, in order; a server may give fewer than `top_k`.

        Raises:
            BadInputError: a prompt is longer than the context window.
            CannotRunError: the server names tokens by text alone.
        """
        self._require_open()
        nothing = np.array([-1], dtype=np.int64)
        rows = [_Row(ids, len(ids) - 1, nothing) for ids in map(self._fitting, prompts)]
        found = self._server.tops(rows, self._view, min(top_k, self._server.vocab_size))
        return [_dist(tops[0], self._server.vocab_size, self._name) for tops in found]

    def generate(
        self, prompt: str, *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Return the continuation of `prompt` alone, as the server writes it."""
        self._require_open()
        drawing = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        (reply,) = self._server.write([prompt], self._view, format="raw", **drawing)
        return reply.text

    def _scored(self, row: Ids, targets: Ids) -> F32:
        (tops,) = self._server.tops([_Row(row, len(row) - len(targets), targets)], self._view, self._server.top_k)
        found = np.array([top.target for top in tops], dtype=np.float32)
        if np.isnan(found).any():
            what = f"the server names no log-prob for {int(np.isnan(found).sum())} of {len(found)} tokens"
            raise CannotRunError(what, where=self._name, remedy="use a server that gives the prompt's log-probs")
        return found


def _dist(top: Top, vocab_size: int, where: str) -> TokenDist:
    ids = [key for key in top.keys if isinstance(key, int)]
    if len(ids) < len(top.keys):
        raise CannotRunError("the server names tokens by their text, which several may share", where=where)
    size = max(vocab_size, len(ids))
    rest = 1.0 - float(np.exp(top.logprobs).sum())
    tail = None if len(ids) == size or rest < _ROUNDING else math.log(rest)
    return TokenDist(np.array(ids, dtype=np.int64), top.logprobs.astype(np.float32), size, tail)
