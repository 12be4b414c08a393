"""Does a thing belong to its own partner? Permutations of partners in a crossed table (null N4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, IntArray, usable

MAX_EXACT: Final = 5_040
N_PERMUTATIONS: Final = 9_999
_TIE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Crossed:
    """Own partners against the others.

    Attributes:
        own: sum over the diagonals.
        others: the same with the mean of the other partners in place of each own one.
        p: one-sided p-value that own partners give more.
        exact: whether all permutations were listed.
        n_permutations: permutations compared, the identity not counted where they are random.
        difference: f64[n], own minus the mean of the others, by column, block after block.
    """

    own: float
    others: float
    p: float
    exact: bool
    n_permutations: int
    difference: FloatArray


def own_against_others(blocks: Sequence[npt.ArrayLike], *, rng: np.random.Generator) -> Crossed:
    """Return whether diagonals are larger than what permuted rows put in their place.

    Under the null hypothesis it does not matter which row a column is paired with, up to an effect of the row and one
    of the column: both cancel, since every permutation uses each row and each column once. The p-value is exact: up to
    5,040 permutations (over all blocks) are listed, beyond 9,999 random ones are compared, with the +1 rule (Hemerik
    and Goeman 2018). Rows change places within their block only. The smallest p is 1 / product of the factorials of the
    blocks' sizes, so fewer than 4 things in all cannot reach 0.05.

    Args:
        blocks: f64[b, b] each, b >= 2; row s, column t: what t gives behind s.
        rng: used where not all permutations are listed.

    Raises:
        BadInputError: no block, one that is not square or smaller than 2, or a value that is not finite.
    """
    tables = _own_against_others_iv(blocks)
    others = [(t.sum(axis=0) - t.diagonal()) / (len(t) - 1) for t in tables]
    own = float(sum(t.trace() for t in tables))
    total = math.prod(math.factorial(len(t)) for t in tables)
    exact = total <= MAX_EXACT
    sums = _all_sums(tables) if exact else _random_sums(tables, rng=rng)
    threshold = own - _TIE * float(sum(np.abs(t).sum() for t in tables))
    reached = int(np.sum(sums >= threshold))
    return Crossed(
        own=own,
        others=float(sum(o.sum() for o in others)),
        p=reached / total if exact else (1 + reached) / (1 + N_PERMUTATIONS),
        exact=exact,
        n_permutations=total if exact else N_PERMUTATIONS,
        difference=np.concatenate([t.diagonal() - o for t, o in zip(tables, others, strict=True)]),
    )


def _own_against_others_iv(blocks: Sequence[npt.ArrayLike]) -> list[FloatArray]:
    tables = [np.array(block, dtype=np.float64) for block in blocks]
    where = "own_against_others: blocks"
    if not tables:
        raise BadInputError("no block", where=where)
    for table in tables:
        if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:  # noqa: PLR2004 (rows and columns)
            raise BadInputError(f"a block of shape {table.shape} is no square of at least 2", where=where)
        if not usable(table).all():
            raise BadInputError("a value is not finite", where=where, remedy="leave that item out")
    return tables


def _all_sums(tables: Sequence[FloatArray]) -> FloatArray:
    """Return the sum of every combination of permutations of the blocks."""
    sums = np.zeros(1)
    for table in tables:
        order = np.array(list(itertools.permutations(range(len(table)))))
        sums = (sums[:, None] + _permuted(table, order)[None]).ravel()
    return sums


def _random_sums(tables: Sequence[FloatArray], *, rng: np.random.Generator) -> FloatArray:
    sums = np.zeros(N_PERMUTATIONS)
    for table, order in zip(tables, _random_orders(tables, rng=rng), strict=True):
        sums += _permuted(table, order)
    return sums


def _random_orders(tables: Sequence[FloatArray], *, rng: np.random.Generator) -> Iterator[IntArray]:
    for table in tables:
        yield np.argsort(rng.random((N_PERMUTATIONS, len(table))), axis=1)


def _permuted(table: FloatArray, order: IntArray) -> FloatArray:
    """Return f64[P], for each row of `order` the sum of what each column gives behind the row in its place."""
    sums: FloatArray = table[order, np.arange(len(table))].sum(axis=1)
    return sums
