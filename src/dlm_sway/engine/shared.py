"""Reads a batch whose rows share prefixes: each prefix once a view, then the rest of every row on top of its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.engine.head import Head
from dlm_sway.engine.kv_cache import Rows, left_padded
from dlm_sway.engine.prefixes import PASS_TOKENS
from dlm_sway.engine.rows import Row

_REACH = 8  # a pass may attend to so many times more tokens than it reads; their keys are copied a layer at a time


@dataclass(frozen=True, slots=True)
class Heads:
    """The prefixes of a batch.

    Attributes:
        prefixes: int64[n] each, distinct.
        of_row: int64[N], the prefix of each row.
        lengths: int64[N], tokens of each row behind its prefix, at least 1.
        bounds: the rows of pass k are `bounds[k]` to `bounds[k + 1] - 1`.
    """

    prefixes: tuple[npt.NDArray[np.int64], ...]
    of_row: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    bounds: tuple[int, ...]


def cut(
    rows: tuple[Row, ...], heads: Sequence[int], *, n_views: int, batch_tokens: int
) -> tuple[Heads | None, tuple[Row, ...]]:
    """Cut rows behind their prefixes and return the prefixes and what is left of the rows.

    Args:
        rows: distinct rows.
        heads: length of the prefix of each row, at most its `first`; empty if they share none.
        n_views: how many views a pass computes, the base included.
        batch_tokens: view-tokens a pass, about.
    """
    if not heads:
        return None, rows
    found: dict[bytes, npt.NDArray[np.int64]] = {}
    for row, n in zip(rows, heads, strict=True):
        found.setdefault(row.ids[:n].tobytes(), row.ids[:n])
    place = {key: i for i, key in enumerate(found)}
    of_row = [place[row.ids[:n].tobytes()] for row, n in zip(rows, heads, strict=True)]
    rest = tuple(Row(r.ids[n:], r.first - n, r.targets) for r, n in zip(rows, heads, strict=True))
    lengths = np.array([len(r.ids) for r in rest], dtype=np.int64)
    bounds = _bounds(lengths.tolist(), max(heads), room=batch_tokens / n_views, padding=PASS_TOKENS / n_views)
    return Heads(tuple(found.values()), np.array(of_row, dtype=np.int64), lengths, tuple(bounds)), rest


def _bounds(lengths: Sequence[int], reach: int, *, room: float, padding: float) -> list[int]:
    """Return where passes begin, and the end: each within `room` tokens, and with at most `padding` of padding."""
    bounds = [0]
    for end in range(1, len(lengths)):
        part = lengths[bounds[-1] : end + 1]
        longest, n = max(part), len(part)
        seen = n * (reach + longest) / _REACH
        if n * longest > room or seen > room or n * longest - sum(part) > padding:
            bounds.append(end)
    return [*bounds, len(lengths)]


@torch.inference_mode()
def read(head: Head, ids: Tensor, keep: Tensor, *, n_views: int, heads: Heads | None) -> Iterator[tuple[int, Tensor]]:
    """Yield `(begin, hidden states [V, p, d])` of the wanted positions `keep[begin:begin + p]`.

    Args:
        head: the model without its vocabulary.
        ids: int64[N, L], right-padded rows; with `heads`, what is behind the prefixes.
        keep: int64[P, 2], (row, position in `ids`) of each wanted logit, rows in order.
        n_views: V; the model computes view-major rows [V * N].
        heads: the prefixes, if rows share any.
    """
    if heads is None:
        hidden = head.hidden(ids.repeat(n_views, 1))  # [V * N, L, d]
        yield 0, _picked(hidden, keep, n_views)
        return
    whole = Rows(head.model)
    prefixes, there = (x.repeat(n_views, 1) for x in left_padded(heads.prefixes, ids.device))  # [V * n, L] each
    head.hidden(prefixes, **whole.read(there))
    for begin, end in pairwise(heads.bounds):
        part, mask = _part(ids, heads.lengths, begin, end)
        source = torch.from_numpy(heads.of_row[begin:end]).to(ids.device)
        source = torch.cat([source + v * len(heads.prefixes) for v in range(n_views)])  # [V * n]
        hidden = head.hidden(part.repeat(n_views, 1), **whole.lend(source).read(mask.repeat(n_views, 1)))
        first, last = torch.searchsorted(
            keep[:, 0].contiguous(), torch.tensor([begin, end], device=ids.device)
        ).tolist()
        mine = keep[first:last] - torch.tensor([begin, 0], device=ids.device)
        yield first, _picked(hidden, mine, n_views)


def blocks(
    head: Head, ids: Tensor, keep: Tensor, *, n_views: int, heads: Heads | None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield `(block of keep, logits [V, p, K])`; arguments as of `read`."""
    for begin, hidden in read(head, ids, keep, n_views=n_views, heads=heads):
        for block, logits in head.blocks(hidden):
            first = begin + block.start
            yield slice(first, first + logits.shape[1]), logits


def _part(ids: Tensor, lengths: npt.NDArray[np.int64], begin: int, end: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64[n, S] each, of the rows from `begin` to `end`."""
    n = torch.from_numpy(lengths[begin:end]).to(ids.device)
    width = int(lengths[begin:end].max())
    mask = torch.arange(width, device=ids.device)[None] < n[:, None]
    return ids[begin:end, :width], mask.to(torch.int64)


def _picked(hidden: Tensor, keep: Tensor, n_views: int) -> Tensor:
    """Return [V, p, d] of hidden states [V * N, L, d]."""
    return hidden.reshape(n_views, -1, *hidden.shape[1:])[:, keep[:, 0], keep[:, 1]]
