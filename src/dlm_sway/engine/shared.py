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
from dlm_sway.engine.rows import Row
from dlm_sway.engine.widths import padded, rows_for

_REACH = 8  # a pass may attend to so many times more tokens than it reads; their keys are copied a layer at a time


@dataclass(frozen=True, slots=True)
class Heads:
    """The prefixes of a batch.

    Attributes:
        prefixes: int64[n] each, distinct.
        of_row: int64[N], the prefix of each row.
        lengths: int64[N], tokens of each row behind its prefix, at least 1.
        bounds: the rows of pass k are `bounds[k]` to `bounds[k + 1] - 1`; they have one canonical width.
    """

    prefixes: tuple[npt.NDArray[np.int64], ...]
    of_row: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    bounds: tuple[int, ...]


def cut(rows: tuple[Row, ...], *, n_views: int, batch_tokens: int) -> tuple[Heads | None, tuple[Row, ...]]:
    """Cut rows behind their prefixes and return the prefixes and what is left of the rows.

    Args:
        rows: distinct rows; where they have heads, rests of one canonical width stand together.
        n_views: how many views a pass computes, the base included.
        batch_tokens: view-tokens a pass, about.
    """
    if not rows[0].head:
        return None, rows
    heads = [row.ids[: row.head] for row in rows]
    place = {ids.tobytes(): i for i, ids in enumerate({h.tobytes(): h for h in heads}.values())}
    prefixes = tuple({h.tobytes(): h for h in heads}.values())
    of_row = np.array([place[h.tobytes()] for h in heads], dtype=np.int64)
    rest = tuple(Row(r.ids[r.head :], r.first - r.head, r.targets) for r in rows)
    lengths = np.array([len(r.ids) for r in rest], dtype=np.int64)
    bounds = _bounds([padded(n) for n in lengths.tolist()], max(map(len, heads)), room=batch_tokens / n_views)
    return Heads(prefixes, of_row, lengths, tuple(bounds)), rest


def _bounds(widths: Sequence[int], reach: int, *, room: float) -> list[int]:
    """Return where passes begin, and the end: rows of one width each, within `room` tokens."""
    bounds = [0]
    for end in range(1, len(widths)):
        n, width = end + 1 - bounds[-1], widths[end]
        seen = n * (reach + width) / _REACH
        if width != widths[bounds[-1]] or n * width > room or seen > room:
            bounds.append(end)
    return [*bounds, len(widths)]


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
    prefixes, there = _prefixes(heads, n_views, ids.device)
    head.hidden(prefixes.repeat(n_views, 1), **whole.read(there.repeat(n_views, 1)))
    for begin, end in pairwise(heads.bounds):
        rows = _tall(np.arange(begin, end), n_views, width=padded(int(heads.lengths[begin])))
        part, mask = _part(ids, heads.lengths, rows)
        source = torch.from_numpy(heads.of_row[rows]).to(ids.device)
        source = torch.cat([source + v * len(prefixes) for v in range(n_views)])  # [V * n]
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
            del logits


def _prefixes(heads: Heads, n_views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64[n, L] each, of the prefixes at their canonical width; some twice if they are few."""
    width = padded(max(map(len, heads.prefixes)) + 1)  # with padding in each, so that there is always a mask
    rows = _tall(np.arange(len(heads.prefixes)), n_views, width=width)
    return left_padded([heads.prefixes[i] for i in rows], device, width=width)


def _part(ids: Tensor, lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64[n, S] each, of rows of one canonical width S."""
    n = torch.from_numpy(lengths[rows]).to(ids.device)
    width = padded(int(lengths[rows].max()))
    mask = torch.arange(width, device=ids.device)[None] < n[:, None]
    return ids[torch.from_numpy(rows).to(ids.device), :width], mask.to(torch.int64)


def _tall(rows: npt.NDArray[np.int64], n_views: int, *, width: int) -> npt.NDArray[np.int64]:
    """Repeat the last of `rows` until a pass of them has enough."""
    return np.append(rows, np.repeat(rows[-1], max(0, rows_for(n_views, width) - len(rows))))


def _picked(hidden: Tensor, keep: Tensor, n_views: int) -> Tensor:
    """Return [V, p, d] of hidden states [V * N, L, d]."""
    return hidden.reshape(n_views, -1, *hidden.shape[1:])[:, keep[:, 0], keep[:, 1]]
